"""Model folders loaded by transformers: full precision, bitsandbytes, torchao, compressed-tensors, GPTQ and AWQ."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.artifact.runtimes.interface import (
    EXPANDED,
    Configuration,
    Runtime,
    RuntimeAdapter,
    RuntimeFacts,
    Score,
    Timing,
)
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import read_folder
from mlflow_quantgov.artifact.runtimes.lossless import configurations_by_type
from mlflow_quantgov.artifact.runtimes.pairs import batches, check_generation, check_room, encode_pairs
from mlflow_quantgov.artifact.runtimes.transformers_operators import watch
from mlflow_quantgov.artifact.runtimes.transformers_settings import TransformersSettings, read_settings
from mlflow_quantgov.artifact.runtimes.transformers_weights import (
    EXTRAS,
    LIBRARIES,
    PURPOSE,
    expanded_share,
    load,
    method_of,
    not_loaded,
    read_config,
    resident,
)
from mlflow_quantgov.errors import ArtifactError, UsageError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "transformers"
_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
DEFAULT_CONTEXT = 2048


class TransformersRuntime(Runtime):
    """One model loaded by transformers.

    Args:
        path: The model folder.
        settings: Threads, context length, types.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ArtifactError: The folder does not load.
    """

    name = NAME

    def __init__(self, path: Path, settings: TransformersSettings) -> None:
        self._torch: Any = require("torch", extra="transformers", purpose=PURPOSE)
        self._torch.set_num_threads(settings.threads)
        device = settings.device
        if device == "auto":
            device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._model, self._tokenizer = load(path, dtype=settings.dtype, device=device)
        self._settings = settings
        self._device = device
        trained = getattr(self._model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
        self._length = settings.context or min(int(trained), DEFAULT_CONTEXT)
        self._ends = self._end_tokens()
        self._set_greedy()
        try:
            with quiet():
                self._forward([[self._start]])
        except Exception as error:
            raise not_loaded(path, f"its first pass fails: {type(error).__name__}: {str(error)[:200]}") from error
        self._resident = resident(self._model)
        self._expanded = expanded_share(path, self._resident)
        with quiet():
            self._operators = watch(self._model, lambda: self._forward([[self._start]]))

    def facts(self) -> RuntimeFacts:
        """What lies in memory after a first pass."""
        version = importlib.metadata.version("transformers")
        settings = asdict(self._settings) | {
            "context": self._length,
            "device": self._device,
            "compute_dtype": str(self._model.dtype).removeprefix("torch."),
            "torch": str(self._torch.__version__),
        }
        return RuntimeFacts(
            runtime=NAME,
            version=version,
            library=f"transformers {version}",
            kernel=self._resident.kernel,
            dequantized=(self._expanded or 0) > EXPANDED,
            resident_bytes=self._resident.bytes,
            parameter_types=dict(self._resident.types),
            twin="own-files",
            settings=settings,
            expanded_share=self._expanded,
            emulated_share=self._operators.expanded_share,
            operators=self._operators.names,
        )

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of a text; special tokens written out in it are parsed."""
        return [int(token) for token in self._tokenizer(text, add_special_tokens=add_special)["input_ids"]]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens written out."""
        return str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    @property
    def vocabulary_size(self) -> int:
        """Number of logits per position."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def context_length(self) -> int:
        """Tokens that fit into one sequence."""
        return self._length

    @property
    def chat_template(self) -> str | None:
        """Jinja source kept beside the tokenizer, if any."""
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        return template if isinstance(template, str) else None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Next-token logits at every position, shape [len(tokens), vocabulary_size].

        Raises:
            UsageError: More tokens than the context holds, or none.
        """
        check_room(len(tokens), self._length, "The text")
        rows: NDArray[np.float32] = self._forward([list(tokens)])[0].float().cpu().numpy()
        return rows

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-probability of each (context, continuation), several of like length in one pass."""
        encoded = encode_pairs(self._with_special, self._start, self._length, pairs)
        found: dict[int, Score] = {}
        for batch in batches(encoded, self._settings.batch, self.vocabulary_size):
            inputs = [(context + continuation)[:-1] for _, context, continuation in batch]
            logits = self._forward(inputs)
            for row, (index, context, continuation) in zip(logits, batch, strict=True):
                part = row[len(context) - 1 : len(context) - 1 + len(continuation)].float()
                wanted = self._torch.tensor(continuation, device=part.device)
                logs = self._torch.log_softmax(part, dim=-1).gather(1, wanted[:, None]).double()
                greedy = bool((part.argmax(dim=-1) == wanted).all())
                found[index] = Score(float(logs.sum()), greedy, len(continuation))
        return [found[index] for index in range(len(pairs))]

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        """Greedy continuation of each prompt, those of like length side by side."""
        check_generation(max_tokens, batch)
        encoded = [self.tokenize(prompt, add_special=True) or [self._start] for prompt in prompts]
        for tokens in encoded:
            check_room(len(tokens) + max_tokens, self._length, "A prompt with its answer")
        order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index]), index))
        answers = [""] * len(encoded)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            for index, answer in zip(part, self._answer([encoded[i] for i in part], max_tokens, stop), strict=True):
                answers[index] = answer
        return answers

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        """Time one load: prefill of `batch` random prompts, then `output_tokens` steps of one token each."""
        if min(batch, prompt_tokens, output_tokens) < 1:
            raise UsageError("A load needs a batch, a prompt and an output.", fix="choose another load")
        check_room(prompt_tokens + output_tokens, self._length, "The load")
        generator = self._torch.Generator().manual_seed(0)
        prompts = self._torch.randint(0, self.vocabulary_size, (batch, prompt_tokens), generator=generator)
        prompts = prompts.to(self._device)
        with self._torch.inference_mode():
            self._model(input_ids=prompts[:, :1])  # warm-up
            self._wait()
            start = time.perf_counter()
            state = self._model(input_ids=prompts, use_cache=True, **self._last_only()).past_key_values
            self._wait()
            middle = time.perf_counter()
            for step in range(output_tokens):
                token = prompts[:, step % prompt_tokens, None]
                found = self._model(input_ids=token, past_key_values=state, use_cache=True)
                state = found.past_key_values
                found.logits.argmax(dim=-1)
            self._wait()
            end = time.perf_counter()
        return Timing(batch * prompt_tokens / (middle - start), batch * output_tokens / (end - middle))

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._model = None

    @property
    def _start(self) -> int:
        """The token that stands for an empty text."""
        for token in (self._tokenizer.bos_token_id, *self._ends):
            if token is not None:
                return int(token)
        return 0

    def _end_tokens(self) -> list[int]:
        """Tokens that end an answer, by tokenizer, generation config and config."""
        found: list[int] = []
        sources = (self._model.generation_config, self._model.config, self._tokenizer)
        for value in (getattr(source, "eos_token_id", None) for source in sources):
            found += [int(one) for one in (value if isinstance(value, list | tuple) else [value]) if one is not None]
        return sorted(set(found))

    def _set_greedy(self) -> None:
        """Greedy decoding, whatever the model's files ask for: both sides must answer without chance."""
        transformers = require("transformers", extra="transformers", purpose=PURPOSE)
        pad = self._tokenizer.pad_token_id
        self._pad = int(pad if pad is not None else self._start)
        self._model.generation_config = transformers.GenerationConfig(
            do_sample=False, num_beams=1, eos_token_id=self._ends or None, pad_token_id=self._pad
        )

    def _forward(self, sequences: Sequence[Sequence[int]]) -> Any:
        """Logits of sequences padded on the right, shape [len(sequences), longest, vocabulary]."""
        ids, mask = self._padded(sequences, left=False)
        with self._torch.inference_mode():
            return self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    def _padded(self, sequences: Sequence[Sequence[int]], *, left: bool) -> tuple[Any, Any]:
        longest = max(len(one) for one in sequences)
        ids, mask = [], []
        for one in sequences:
            padding, present = [self._pad] * (longest - len(one)), [1] * len(one)
            absent = [0] * len(padding)
            ids.append([*padding, *one] if left else [*one, *padding])
            mask.append(absent + present if left else present + absent)
        return self._torch.tensor(ids, device=self._device), self._torch.tensor(mask, device=self._device)

    def _answer(self, prompts: list[list[int]], max_tokens: int, stop: Sequence[str]) -> list[str]:
        """Continue one batch of prompts."""
        ids, mask = self._padded(prompts, left=True)
        transformers = require("transformers", extra="transformers", purpose=PURPOSE)
        criteria = transformers.StoppingCriteriaList([self._stopping(ids.shape[1], stop)] if stop else [])
        with self._torch.inference_mode():
            found = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, stopping_criteria=criteria
            )
        return [self._text(row[ids.shape[1] :].tolist(), stop) for row in found]

    def _stopping(self, prompt: int, stop: Sequence[str]) -> Any:
        """Tells which rows hold a stop string among their last tokens."""
        tail = max(len(one.encode()) for one in stop) + 8

        def ended(ids: Any, scores: Any, **_: Any) -> Any:
            texts = [self.detokenize(row[max(prompt, row.shape[0] - tail) :].tolist()) for row in ids]
            flags = [any(one in text for one in stop if one) for text in texts]
            return self._torch.tensor(flags, device=ids.device)

        return ended

    def _text(self, tokens: list[int], stop: Sequence[str]) -> str:
        """Text up to the first token that ends an answer and before the first stop string."""
        end = next((at for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        text = self.detokenize(tokens[:end])
        places = [text.find(one) for one in stop if one and one in text]
        return text[: min(places)] if places else text

    def _with_special(self, text: str) -> list[int]:
        """Token ids with the special tokens that the model asks for."""
        return self.tokenize(text, add_special=True)

    def _last_only(self) -> dict[str, int]:
        """Only the last position's logits in a prefill, as a server asks for them, where the model can."""
        return {"logits_to_keep": 1} if "logits_to_keep" in signature(self._model.forward).parameters else {}

    def _wait(self) -> None:
        """Until the accelerator is done."""
        if self._device.startswith("cuda"):
            self._torch.cuda.synchronize()


class TransformersAdapter(RuntimeAdapter):
    """transformers, with torch on this machine's CPU or GPU."""

    name = NAME
    takes_threads = True

    def reason_not_loadable(self, path: Path) -> str | None:
        """None for a folder of safetensors with a config that transformers reads here without running its code."""
        for module in ("torch", "transformers"):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed (pip install 'mlflow-quantgov[transformers]')"
        if not path.is_dir():
            return f"{path.name} is no folder with a config.json"
        if not any(path.glob("*.safetensors")):
            return "it holds no .safetensors file (other weights are expanded on load, or need a pickle)"
        try:
            config = read_config(path)
        except ArtifactError as error:
            return error.what
        if "auto_map" in config:
            return "its config asks for code of its own, which is not run"
        method = method_of(config)
        missing = next((one for one in LIBRARIES.get(method or "", ()) if not _is_installed(one)), None)
        if missing is not None:
            hint = f" (pip install 'mlflow-quantgov[{EXTRAS[str(method)]}]')" if method in EXTRAS else ""
            return f"{missing} is not installed, which transformers needs for {method}{hint}"
        return None

    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> TransformersRuntime:
        """Load a model folder.

        Args:
            path: Folder with config.json, tokenizer and .safetensors files.
            cache: Not used; transformers loads the files themselves.
            **settings: Fields of `TransformersSettings`.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            ArtifactError: The files do not load.
            UsageError: A setting is unknown or out of range.
        """
        chosen = read_settings(settings)
        for module in ("torch", "transformers"):
            require(module, extra="transformers", purpose=PURPOSE)
        reason = self.reason_not_loadable(path)
        if reason is not None:
            raise ArtifactError(
                f"transformers cannot load {path.name}: {reason}.",
                why="What does not load cannot be measured.",
                fix=f"quantgov inspect {path}",
            )
        return TransformersRuntime(path, chosen)

    def load_libraries(self, path: Path) -> None:
        """Import torch, transformers and the library of the folder's quantization method."""
        method = method_of(read_config(path))
        for module in ("torch", "transformers", *LIBRARIES.get(method or "", ())):
            with quiet():
                require(module, extra=EXTRAS.get(method or "", "transformers"), purpose=PURPOSE)

    def configurations(self, path: Path) -> list[Configuration]:
        """Full precision in each type that holds every number; quantized weights as stored, and with the rest in float32."""
        config = read_config(path)
        if method_of(config) is not None:
            stored = config.get("dtype") or config.get("torch_dtype")
            wide = [Configuration("rest in float32", {"dtype": "float32"})] if stored != "float32" else []
            return [Configuration("as stored", {"dtype": "auto"}), *wide]
        tensors = read_folder(path)
        return [
            Configuration(_TYPES[one.name], {"dtype": _TYPES[one.name]}, one.weight_bytes, one.lossy)
            for one in configurations_by_type(tensors, {tensor.dtype for tensor in tensors.values()})
        ]


def _is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
