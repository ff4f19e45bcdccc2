"""An ONNX decoder loaded by onnxruntime, alone or through onnxruntime-genai, on the CPU."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeFacts, Score, Timing
from mlflow_quantgov.artifact.runtimes.onnxruntime.engine import Engine
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import OnnxFolder, not_loaded, read_onnx_folder
from mlflow_quantgov.artifact.runtimes.onnxruntime.genai import GenaiEngine
from mlflow_quantgov.artifact.runtimes.onnxruntime.graph import Ran, Weights, ran_quantized, read_weights
from mlflow_quantgov.artifact.runtimes.onnxruntime.session import PROVIDER, SessionEngine
from mlflow_quantgov.artifact.runtimes.onnxruntime.settings import OnnxSettings
from mlflow_quantgov.artifact.runtimes.onnxruntime.vocabulary import Vocabulary
from mlflow_quantgov.artifact.runtimes.pairs import batches, check_generation, check_room, encode_pairs
from mlflow_quantgov.errors import UsageError

NAME = "onnxruntime"
DEFAULT_CONTEXT = 2048


class OnnxRuntime(Runtime):
    """One loaded ONNX decoder. Not safe for use by several threads at once.

    Args:
        path: A folder, or a `.onnx` file with a tokenizer.json beside it.
        settings: Threads, context length, tokens per pass, engine.
        twin: How the files relate to the artifact: `own-files`, `lossless-twin` or `converted`.
        notes: Further facts to record among the settings.

    Raises:
        MissingExtraError: A library of the extra `onnx` is not installed.
        ArtifactError: The files do not load.
    """

    name = NAME

    def __init__(
        self, path: Path, settings: OnnxSettings, *, twin: str = "own-files", notes: dict[str, Any] | None = None
    ) -> None:
        folder = read_onnx_folder(path)
        if settings.engine == "genai" and not folder.is_genai:
            raise not_loaded(path, "it has no genai_config.json, which the engine genai needs")
        self._settings, self._twin, self._notes = settings, twin, notes or {}
        self._vocabulary = Vocabulary(folder)
        self._template = folder.chat_template()
        self._length = settings.context or min(folder.trained_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        self._weights = read_weights(folder.graph)
        self._ran = self._look(folder, self._weights, settings)
        genai = folder.is_genai and settings.engine != "session"
        self._engine: Engine | None = (GenaiEngine if genai else SessionEngine)(folder, settings)
        if not genai:
            self._ran = ran_quantized(self._weights, self._engine.ran())
        try:
            self._size = int(self._open().logits([[self._vocabulary.start]]).shape[-1])
        except RuntimeError as error:
            raise not_loaded(path, f"its first pass fails: {' '.join(str(error).split())[:200]}") from error

    @staticmethod
    def _look(folder: OnnxFolder, weights: Weights, settings: OnnxSettings) -> Ran:
        """By the graph alone; where that expands weights, onnxruntime's fusions are looked at in a session of its own.

        onnxruntime-genai does not say what it ran, and onnxruntime may fuse an expansion with the product behind it.
        """
        found = ran_quantized(weights, None)
        if not found.dequantized or not folder.is_genai:
            return found
        session = SessionEngine(folder, settings)
        try:
            return ran_quantized(weights, session.ran())
        finally:
            session.close()

    def facts(self) -> RuntimeFacts:
        """What the graph stores, and which operators run it."""
        engine = self._open()
        version = importlib.metadata.version("onnxruntime")
        settings = asdict(self._settings) | {
            "context": self._length,
            "device": "cpu",
            "engine": engine.name,
            "provider": PROVIDER,
        }
        return RuntimeFacts(
            runtime=NAME,
            version=version,
            library=engine.library,
            kernel=f"{self._ran.kernel} ({PROVIDER})" if self._ran.kernel else None,
            dequantized=self._ran.dequantized,
            resident_bytes=self._weights.bytes,
            parameter_types=dict(self._weights.types),
            twin=self._twin,
            settings=settings | self._notes,
            expanded_share=self._ran.expanded_share,
            operators=self._ran.operators,
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
        return self._size

    @property
    def context_length(self) -> int:
        """Tokens that fit into one sequence."""
        return self._length

    @property
    def chat_template(self) -> str | None:
        """Jinja source kept beside the tokenizer, if any."""
        return self._template

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Next-token logits at every position, shape [len(tokens), vocabulary_size].

        Raises:
            UsageError: More tokens than the context holds, or none.
        """
        check_room(len(tokens), self._length, "The text")
        rows: NDArray[np.float32] = self._open().logits([tokens])[0]
        return rows

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-probability of each (context, continuation), several of like length in one pass."""
        encoded = encode_pairs(self._with_special, self._vocabulary.start, self._length, pairs)
        found: dict[int, Score] = {}
        for batch in batches(encoded, self._settings.batch, self.vocabulary_size):
            rows = self._open().logits([(context + continuation)[:-1] for _, context, continuation in batch])
            for row, (index, context, continuation) in zip(rows, batch, strict=True):
                found[index] = _score(row[len(context) - 1 : len(context) - 1 + len(continuation)], continuation)
        return [found[index] for index in range(len(pairs))]

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        """Greedy continuation of each prompt, those of like length side by side."""
        check_generation(max_tokens, batch)
        encoded = [self.tokenize(prompt, add_special=True) or [self._vocabulary.start] for prompt in prompts]
        for tokens in encoded:
            check_room(len(tokens) + max_tokens, self._length, "A prompt with its answer")
        stops = [text for text in stop if text]
        answers = [""] * len(encoded)
        for part in _groups(encoded, batch, self._open().mixed_lengths):
            found = self._open().answer(
                [encoded[index] for index in part], max_tokens, lambda tokens: self._ended(tokens, stops)
            )
            for index, written in zip(part, found, strict=True):
                answers[index] = self._text(written, stops)
        return answers

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        """Time one load: prefill of `batch` random prompts, then `output_tokens` steps of one token each."""
        if min(batch, prompt_tokens, output_tokens) < 1:
            raise UsageError("A load needs a batch, a prompt and an output.", fix="choose another load")
        check_room(prompt_tokens + output_tokens, self._length, "The load")
        prompts = np.random.default_rng(0).integers(0, self.vocabulary_size, (batch, prompt_tokens), dtype=np.int64)
        return self._open().time(prompts, output_tokens)

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _open(self) -> Engine:
        """The engine, or an error once it was closed."""
        if self._engine is None:
            raise UsageError(
                "This model was closed.", why="Its memory is no longer there.", fix="open the artifact again"
            )
        return self._engine

    def _ended(self, tokens: Sequence[int], stops: Sequence[str]) -> bool:
        """Whether an answer's last token ends it, or completes a stop string."""
        if tokens[-1] in self._vocabulary.ends:
            return True
        if not stops:
            return False
        tail = max(len(one.encode()) for one in stops) + 8
        text = self.detokenize(tokens[-tail:])
        return any(one in text for one in stops)

    def _text(self, tokens: list[int], stops: Sequence[str]) -> str:
        """Text up to the first token that ends an answer and before the first stop string."""
        end = next((at for at, token in enumerate(tokens) if token in self._vocabulary.ends), len(tokens))
        text = self.detokenize(tokens[:end])
        places = [text.find(one) for one in stops if one in text]
        return text[: min(places)] if places else text

    def _with_special(self, text: str) -> list[int]:
        """Token ids with the special tokens that the model asks for."""
        return self.tokenize(text, add_special=True)


def _groups(encoded: Sequence[Sequence[int]], batch: int, mixed: bool) -> Iterator[list[int]]:
    """Indices of prompts continued side by side: of like length, or of equal length where lengths may not mix."""
    order = sorted(range(len(encoded)), key=lambda index: (-len(encoded[index]), index))
    part: list[int] = []
    for index in order:
        if part and (len(part) == batch or not (mixed or len(encoded[part[0]]) == len(encoded[index]))):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def _score(rows: NDArray[np.float32], tokens: Sequence[int]) -> Score:
    """Score of tokens by their logits [len(tokens), vocabulary]."""
    top = rows.max(axis=1)
    logs = (
        rows[np.arange(len(tokens)), tokens] - top - np.log(np.exp(rows - top[:, None]).sum(axis=1, dtype=np.float64))
    )
    return Score(float(logs.sum()), bool((rows.argmax(axis=1) == tokens).all()), len(tokens))
