"""One interface for every runtime: load, score, generate, count resident bytes, name the kernel in use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXPANDED = 0.01
"""Share of the quantized weights from which on their being expanded counts: less is rounding of bytes and paddings."""


@dataclass(frozen=True)
class RuntimeFacts:
    """What the runtime says about itself and the loaded weights."""

    runtime: str
    """Name as targets spell it: `llama.cpp`, `transformers`, `onnxruntime`, `openai`."""
    version: str
    library: str
    """Distribution that carried it here, with version (`xllamacpp 2026.10.11549`)."""
    kernel: str | None
    """Kernel or buffer type that holds most weights (`CPU_REPACK q4_0_8x8`); None where the runtime cannot tell."""
    dequantized: bool
    """True where weights were expanded on load, so that nothing quantized runs."""
    resident_bytes: int | None
    """Bytes that the weights occupy once loaded."""
    parameter_types: dict[str, int]
    """Storage type of the loaded weights to number of tensors."""
    twin: str
    """`own-files`, or `lossless-twin` where a proved equal conversion was loaded, or `converted` (a confounder);
    `imported` where somebody else's server runs it."""
    settings: dict[str, Any]
    """Threads, context length, compute dtype: whatever must be equal on both sides."""
    expanded_share: float | None = None
    """Of the quantized weights, those that were expanded on loading; None where the runtime cannot tell."""
    emulated_share: float | None = None
    """Of the quantized weights, those that a pass of one token expands again; None where the runtime cannot tell."""
    operators: tuple[str, ...] = ()
    """Operators that multiply with the quantized weights in that pass, commonest first, where the runtime can tell."""
    instruction_sets: tuple[str, ...] | None = None
    """Instruction sets that it was built for or says to use, as Linux names them; None where it does not say."""
    saw_bytes: bool = True
    """False where somebody else's server answers: evidence is then labelled `imported`."""


@dataclass(frozen=True)
class Score:
    """Log-probability of one continuation given its context."""

    logprob: float
    """Sum over the continuation's tokens, natural logarithm."""
    is_greedy: bool
    """Whether every token of the continuation was the most likely one."""
    tokens: int


@dataclass(frozen=True)
class RequestTiming:
    """One request of a load, in seconds since it was sent."""

    first: float
    """Until its first token arrived."""
    last: float
    """Until its last one did."""


@dataclass(frozen=True)
class Timing:
    """One timed run of a load."""

    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    requests: tuple[RequestTiming, ...] = ()
    """Of each request, where they run apart; empty where they are one batch, whose times follow from the speeds."""


@dataclass(frozen=True)
class Configuration:
    """One way to run an artifact with the very numbers that it stores."""

    name: str
    """In words: `BF16 twin`, `as stored`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """For `RuntimeAdapter.open`."""
    weight_bytes: int | None = None
    """About what its weights take in memory; None where nobody knows before loading."""
    lossy: str | None = None
    """Why it would change the numbers, so that it is no configuration of this artifact; None where it would not."""


@dataclass(frozen=True)
class Prepared:
    """What is really opened for a configuration."""

    path: Path
    settings: dict[str, Any]
    """For `RuntimeAdapter.open`."""
    twin: str | None = None
    """What `RuntimeFacts.twin` is to say, where the path alone does not tell."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Further facts to record among the settings."""


class Runtime(ABC):
    """A model loaded by one runtime. Use as a context manager; `close` frees it."""

    name: str
    answered: Callable[[float], None] = staticmethod(lambda _: None)
    """Told, by runtimes that can, how many prompts of a `generate` have their answers; what is half written counts in part."""

    @abstractmethod
    def facts(self) -> RuntimeFacts:
        """What the runtime really did with the weights."""

    @abstractmethod
    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of a text; special tokens written out in it (`<|im_start|>`) are parsed."""

    @abstractmethod
    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of logits per position."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Tokens that fit into one sequence."""

    @property
    @abstractmethod
    def chat_template(self) -> str | None:
        """Jinja source of the model's own chat template, if it has one."""

    @abstractmethod
    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Next-token logits at every position, shape [len(tokens), vocabulary_size]."""

    @abstractmethod
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-probability of each (context, continuation)."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        """Greedy continuation of each prompt, answered in batches; stops at end of text or a stop string (left out)."""

    @abstractmethod
    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        """Run one load (random prompt of a fixed seed) and time it on this machine, right now."""

    @abstractmethod
    def close(self) -> None:
        """Free the model."""

    def render_chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The model's own prompt for a conversation, ready for the answer; the bare text where it has no template."""
        return render_chat(self.chat_template, messages)

    def converse(
        self,
        conversations: Sequence[Sequence[dict[str, str]]],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        batch: int = 8,
    ) -> list[str]:
        """Greedy answers to conversations, in the model's own template; a last turn of the assistant is gone on with."""
        prompts = [self.render_chat(one) for one in conversations]
        return self.generate(prompts, max_tokens=max_tokens, stop=stop, batch=batch)

    def __enter__(self) -> Runtime:
        """Return the loaded model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the model."""
        self.close()


def render_chat(template: str | None, messages: Sequence[dict[str, str]]) -> str:
    """A prompt for a conversation by a chat template.

    Args:
        template: Jinja source; None gives the bare texts, one below the other.
        messages: Turns with `role` and `content`. Where the last is the assistant's, the answer was begun for the model:
            its words follow the template's prompt.
    """
    turns = list(messages)
    begun = turns.pop()["content"] if len(turns) > 1 and turns[-1]["role"] == "assistant" else ""
    if template is None:
        return "\n".join(message["content"] for message in turns) + begun
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    made = environment.from_string(template)
    return made.render(messages=turns, add_generation_prompt=True, bos_token="", eos_token="") + begun


class RuntimeAdapter(ABC):
    """Opens artifacts in one runtime."""

    name: str
    """Name as targets spell it."""

    @abstractmethod
    def reason_not_loadable(self, path: Path) -> str | None:
        """None where this runtime can load the artifact here, else why not, in one sentence."""

    @abstractmethod
    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> Runtime:
        """Load an artifact (folder or file).

        Args:
            path: The model folder or file.
            cache: Folder in which a converted twin may be kept; a temporary one where None.
            **settings: `threads`, `context`, ...; unknown ones are an error.

        Raises:
            MissingExtraError: The runtime's library is not installed.
            ArtifactError: The files do not load.
        """

    takes_threads = False
    """Whether `open` takes `threads`, and the speed depends on it."""

    def load_libraries(self, path: Path) -> None:  # noqa: B027 (a runtime without heavy libraries has nothing to do)
        """Import what opening an artifact needs, so that neither the time nor the memory of that counts as the model's."""

    def configurations(self, path: Path) -> list[Configuration]:
        """Ways to run an artifact without loss, one of which is the fastest on this machine.

        Raises:
            ArtifactError: The files do not read.
        """
        return [Configuration("as stored")]

    def prepare(self, path: Path, configuration: Configuration, cache: Path) -> Prepared:
        """Make (or find in `cache`) what a configuration opens, so that opening it is loading and nothing else.

        Raises:
            ArtifactError: It cannot be made without loss.
            MissingExtraError: A library that makes it is not installed.
        """
        return Prepared(path, configuration.settings)
