"""Runs the smallest language model there is: the next byte depends on the last byte alone (`bigram`, 256 x 256)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeAdapter, RuntimeFacts, Score, Timing
from mlflow_quantgov.artifact.runtimes.pairs import check_room, split_pair
from mlflow_quantgov.errors import UsageError

NAME = "ternary-numpy"
CONTEXT = 4096


class TernaryRuntime(Runtime):
    """One loaded model; full-precision parents too, so that both sides run in the same runtime."""

    name = NAME

    def __init__(self, path: Path) -> None:
        self._tensors = load_file(path / "model.safetensors")
        self._quantized = "bigram.trits" in self._tensors

    def facts(self) -> RuntimeFacts:
        """What lies in memory: trits stay trits, and are multiplied row by row."""
        return RuntimeFacts(
            runtime=NAME,
            version="1.0",
            library="quantgov-ternary 1.0",
            kernel="numpy rows int8" if self._quantized else "numpy rows float32",
            dequantized=False,
            resident_bytes=sum(tensor.nbytes for tensor in self._tensors.values()),
            parameter_types={str(tensor.dtype): 1 for tensor in self._tensors.values()},
            twin="own-files",
            settings={"threads": 1, "context": CONTEXT},
        )

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return list(text.encode())

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    @property
    def vocabulary_size(self) -> int:
        return 256

    @property
    def context_length(self) -> int:
        return CONTEXT

    @property
    def chat_template(self) -> str | None:
        return None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        check_room(len(tokens), CONTEXT, "The text")
        if not self._quantized:
            return self._tensors["bigram.weight"][list(tokens)].astype(np.float32)
        rows = self._tensors["bigram.trits"][list(tokens)].astype(np.float32)
        return rows * self._tensors["bigram.scale"][list(tokens), None]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return [self._score(index, *pair) for index, pair in enumerate(pairs)]

    def _score(self, index: int, context: str, continuation: str) -> Score:
        before, after = split_pair(lambda text: self.tokenize(text), 0, index, context, continuation)
        rows = self.logits((before + after)[:-1])[len(before) - 1 :].astype(np.float64)
        logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        greedy = bool((rows.argmax(axis=1) == after).all())
        return Score(float(logs[np.arange(len(after)), after].sum()), greedy, len(after))

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        if max_tokens < 1:
            raise UsageError("An answer has at least one token.", fix="use max_tokens >= 1")
        return [self._answer(prompt, max_tokens, stop) for prompt in prompts]

    def _answer(self, prompt: str, max_tokens: int, stop: Sequence[str]) -> str:
        tokens = self.tokenize(prompt) or [0]
        written: list[int] = []
        for _ in range(max_tokens):
            written.append(int(self.logits([*tokens, *written][-1:])[0].argmax()))
            text = self.detokenize(written)
            places = [text.find(one) for one in stop if one and one in text]
            if places:
                return text[: min(places)]
        return self.detokenize(written)

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        tokens = np.random.default_rng(0).integers(0, 256, prompt_tokens).tolist()
        start = time.perf_counter()
        for _ in range(batch):
            self.logits(tokens)
        middle = time.perf_counter()
        for step in range(batch * output_tokens):
            self.logits([step % 256]).argmax()
        end = time.perf_counter()
        return Timing(batch * prompt_tokens / (middle - start), batch * output_tokens / (end - middle))

    def close(self) -> None:
        self._tensors = {}


class TernaryAdapter(RuntimeAdapter):
    """Opens folders with a `bigram` matrix."""

    name = NAME

    def reason_not_loadable(self, path: Path) -> str | None:
        file = path / "model.safetensors"
        if not file.is_file():
            return "it holds no model.safetensors"
        with file.open("rb") as opened:
            header = opened.read(min(65536, 8 + int.from_bytes(opened.read(8), "little")))
        return None if b'"bigram.' in header else "it holds no bigram matrix"

    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> TernaryRuntime:
        if settings.keys() - {"threads"}:
            raise UsageError(f"{NAME} takes no settings but threads.", why="A setting that is ignored misleads.")
        return TernaryRuntime(path)
