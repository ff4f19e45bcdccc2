"""A GGUF model loaded by the llama.cpp of an installed package."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeFacts, Score, Timing
from mlflow_quantgov.artifact.runtimes.llama_cpp import scoring
from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import LOAD_INTO_MEMORY, library
from mlflow_quantgov.artifact.runtimes.llama_cpp.context import MAX_SEQUENCES, Context, Entry
from mlflow_quantgov.artifact.runtimes.llama_cpp.generation import greedy
from mlflow_quantgov.artifact.runtimes.llama_cpp.loadlog import failure, instruction_sets, read_load_log
from mlflow_quantgov.artifact.runtimes.llama_cpp.vocabulary import Vocabulary
from mlflow_quantgov.artifact.runtimes.pairs import check_room
from mlflow_quantgov.errors import ArtifactError, UsageError

NAME = "llama.cpp"
DEFAULT_CONTEXT = 2048
CELL_BLOCK = 256
"""Context sizes are rounded up to this many tokens, as llama.cpp does itself."""


@dataclass(frozen=True)
class LlamaSettings:
    """What must be equal when two models are compared."""

    threads: int
    """Worker threads, above 0."""
    context: int | None = None
    """Tokens per sequence; None: as trained, at most 2048."""
    batch: int = 512
    """Tokens per call of llama.cpp, above 0."""


class LlamaRuntime(Runtime):
    """One loaded GGUF file. Not safe for use by several threads at once.

    Args:
        path: The GGUF file.
        settings: Threads, context length, tokens per call.
        twin: How the file relates to the artifact: `own-files` or `lossless-twin`.
        notes: Further facts to record among the settings (storage type of a twin).

    Raises:
        MissingExtraError: No package with llama.cpp is installed.
        ArtifactError: llama.cpp does not load the file.
    """

    name = NAME

    def __init__(
        self, path: Path, settings: LlamaSettings, *, twin: str = "own-files", notes: dict[str, Any] | None = None
    ) -> None:
        self._model: int | None = None
        self._context: Context | None = None
        self._llama = library()
        self._settings = settings
        self._twin = twin
        self._notes = notes or {}
        with self._llama.captured_log() as lines:
            params = self._llama.model_params(load_mode=LOAD_INTO_MEMORY)
            self._model = self._llama.c.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ArtifactError(
                f"llama.cpp does not load {path.name}: {failure(lines)}.",
                why="What does not load cannot be measured or served.",
                fix=f"quantgov inspect {path}",
            )
        self._log = read_load_log(lines)
        self._vocabulary = Vocabulary(self._llama, self._model)
        trained = int(self._llama.c.llama_model_n_ctx_train(self._model))
        self._length = settings.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)

    def facts(self) -> RuntimeFacts:
        """What llama.cpp said while it loaded the weights."""
        library = f"{self._llama.distribution} {self._llama.version}"
        settings = {
            "library": library,
            "threads": self._settings.threads,
            "context": self._length,
            "batch": self._settings.batch,
            "kv_cache": "f16",
            "system_info": self._llama.system_info(),
        }
        return RuntimeFacts(
            runtime=NAME,
            version=self._llama.version,
            library=library,
            kernel=self._log.kernel,
            dequantized=False,
            resident_bytes=self._log.resident_bytes,
            parameter_types=dict(self._log.types),
            twin=self._twin,
            settings=settings | self._notes,
            instruction_sets=instruction_sets(self._llama.system_info()),
        )

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of a text; special tokens written out in it are parsed."""
        return self._vocabulary.tokenize(text, add_special=add_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens written out."""
        return self._vocabulary.text(tokens)

    @property
    def vocabulary_size(self) -> int:
        """Number of logits per position."""
        return self._vocabulary.size

    @property
    def context_length(self) -> int:
        """Tokens that fit into one sequence."""
        return self._length

    @property
    def chat_template(self) -> str | None:
        """Jinja source kept in the file's metadata, if any."""
        found = self._llama.c.llama_model_chat_template(self._open_model(), None)
        return found.decode("utf-8", "replace") if found else None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Next-token logits at every position, shape [len(tokens), vocabulary_size].

        Raises:
            UsageError: More tokens than the context holds, or none.
        """
        check_room(len(tokens), self._length, "The text")
        context = self._room(cells=len(tokens), sequences=1, shared=True)
        context.clear()
        rows = np.empty((len(tokens), self.vocabulary_size), dtype=np.float32)
        for at, row in enumerate(context.decode([Entry(token, i, (0,), True) for i, token in enumerate(tokens)])):
            rows[at] = row
        return rows

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-probability of each (context, continuation); equal contexts are processed once."""
        encoded = [scoring.encode(self._vocabulary, i, *pair) for i, pair in enumerate(pairs)]
        for pair in encoded:
            check_room(len(pair.context) + len(pair.continuation), self._length, f"Pair {pair.index}")
        found: dict[int, Score] = {}
        for pack in scoring.packs(encoded, self._settings.batch):
            cells = max(scoring.tokens_of(pack), self._settings.batch)
            context = self._room(cells=cells, sequences=scoring.MAX_TOGETHER, shared=True)
            found.update(scoring.score_pack(context, pack))
        return [found[i] for i in range(len(pairs))]

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        """Greedy continuation of each prompt, `batch` of them side by side; see `generation.greedy`."""
        if max_tokens < 1 or not 1 <= batch <= MAX_SEQUENCES:
            raise UsageError(
                f"generate() was asked for {max_tokens} tokens in batches of {batch}.",
                why=f"llama.cpp answers at least one token, and 1 to {MAX_SEQUENCES} prompts side by side.",
                fix="use max_tokens >= 1 and a batch from 1 to 256",
            )
        encoded = [self.tokenize(prompt, add_special=True) or [self._vocabulary.start] for prompt in prompts]
        if not encoded:
            return []
        longest = max(len(tokens) for tokens in encoded) + max_tokens
        check_room(longest, self._length, "The longest prompt with its answer")
        context = self._room(cells=longest, sequences=min(batch, len(encoded)), shared=False)
        return greedy(context, self._vocabulary, encoded, max_tokens=max_tokens, stop=stop, answered=self.answered)

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        """Time one load: prefill of `batch` random prompts, then `output_tokens` steps of one token each."""
        if min(batch, prompt_tokens, output_tokens) < 1 or batch > MAX_SEQUENCES:
            raise UsageError(
                f"A load of batch {batch}, {prompt_tokens} prompt and {output_tokens} output tokens cannot be timed.",
                why="Each must be at least 1, and llama.cpp holds at most 256 sequences.",
                fix="choose another load",
            )
        check_room(prompt_tokens + output_tokens, self._length, "The load")
        context = self._room(cells=prompt_tokens + output_tokens, sequences=batch, shared=False)
        prompts = np.random.default_rng(0).integers(0, self.vocabulary_size, (batch, prompt_tokens)).tolist()
        self._spend(context, [Entry(prompts[0][0], 0, (0,), True)])  # warm-up: buffers and threads
        context.clear()
        start = time.perf_counter()
        self._spend(
            context,
            [Entry(t, i, (s,), i == prompt_tokens - 1) for s in range(batch) for i, t in enumerate(prompts[s])],
        )
        middle = time.perf_counter()
        for step in range(output_tokens):
            token = prompts[0][step % prompt_tokens]
            self._spend(context, [Entry(token, prompt_tokens + step, (s,), True) for s in range(batch)])
        end = time.perf_counter()
        return Timing(batch * prompt_tokens / (middle - start), batch * output_tokens / (end - middle))

    @staticmethod
    def _spend(context: Context, entries: list[Entry]) -> None:
        """Decode and read every row, as a server must before it answers."""
        for row in context.decode(entries):
            row.argmax()

    def close(self) -> None:
        """Free the model and its memory; calling it again does nothing."""
        if self._context is not None:
            self._context.close()
            self._context = None
        if self._model:
            self._llama.c.llama_model_free(self._model)
            self._model = None

    def __del__(self) -> None:
        self.close()

    def _open_model(self) -> int:
        """Pointer to the model, or an error once it was closed."""
        if not self._model:
            raise UsageError(
                "This model was closed.", why="Its memory is no longer there.", fix="open the artifact again"
            )
        return self._model

    def _room(self, *, cells: int, sequences: int, shared: bool) -> Context:
        """A context of at least that shape: the one at hand where it fits, else a new one in its place."""
        model = self._open_model()
        cells = -(-cells // CELL_BLOCK) * CELL_BLOCK
        old = self._context
        if old and old.shared == shared and cells <= old.cells <= 4 * cells and old.sequences == sequences:
            old.clear()
            return old
        if old:
            old.close()
            self._context = None
        self._context = Context(
            self._llama,
            model,
            self.vocabulary_size,
            cells=cells,
            sequences=sequences,
            threads=self._settings.threads,
            chunk=self._settings.batch,
            shared=shared,
        )
        return self._context
