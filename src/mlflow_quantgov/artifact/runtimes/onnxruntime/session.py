"""A decoder graph in onnxruntime alone: ids, mask and positions in, logits and keys and values out."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Timing
from mlflow_quantgov.artifact.runtimes.onnxruntime.engine import Ended, Engine, padded
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE, OnnxFolder, not_loaded
from mlflow_quantgov.artifact.runtimes.onnxruntime.settings import OnnxSettings
from mlflow_quantgov.errors import require

PROVIDER = "CPUExecutionProvider"
_KNOWN = {"input_ids", "attention_mask", "position_ids"}
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
_PASTS = ("past_key_values.", "past.")


class SessionEngine(Engine):
    """One graph loaded by onnxruntime on the CPU, with its first pass profiled.

    Args:
        folder: The model.
        settings: Threads.

    Raises:
        MissingExtraError: `onnxruntime` is not installed.
        ArtifactError: The graph does not load, or is no decoder that this engine can feed.
    """

    name = "session"
    mixed_lengths = False

    def __init__(self, folder: OnnxFolder, settings: OnnxSettings) -> None:
        self._ort: Any = require("onnxruntime", extra="onnx", purpose=PURPOSE)
        self.library = f"onnxruntime {importlib.metadata.version('onnxruntime')}"
        self._folder = folder
        with tempfile.TemporaryDirectory(prefix="quantgov-profile-") as scratch:
            options = self._ort.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
            options.log_severity_level = 4
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "first")
            try:
                self._session: Any = self._ort.InferenceSession(str(folder.graph), options, providers=[PROVIDER])
            except Exception as error:
                raise not_loaded(folder.root, " ".join(str(error).split())[:300]) from error
            self._describe()
            try:
                self.logits([[0]])
            except Exception as error:
                raise not_loaded(folder.root, f"its first pass fails: {' '.join(str(error).split())[:300]}") from error
            self._ran = _executed(Path(self._session.end_profiling()))

    def _describe(self) -> None:
        """Names and types of what the graph takes and gives."""
        self._inputs = {one.name: one for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._past = [name for name in self._inputs if name.startswith(_PASTS)]
        unknown = sorted(self._inputs.keys() - _KNOWN - set(self._past))
        presents = [name for name in self._outputs if name.startswith("present")]
        problem = None
        if unknown:
            problem = f"its graph takes {unknown[0]}, which this runtime does not know how to fill"
        elif "input_ids" not in self._inputs or "logits" not in self._outputs:
            problem = "its graph is no decoder: it does not turn input_ids into logits"
        elif len(presents) != len(self._past):
            problem = f"its graph takes {len(self._past)} past tensors and gives {len(presents)}"
        elif any(one.type not in _TYPES for one in self._inputs.values()):
            problem = "its graph takes inputs of a type that this runtime does not fill"
        if problem:
            raise not_loaded(self._folder.root, problem)
        # `past_key_values.0.key` goes on as `present.0.key`.
        self._present = {name: "present." + name.split(".", 1)[1] for name in self._past}
        missing = [name for name in self._present.values() if name not in self._outputs]
        if missing:
            raise not_loaded(self._folder.root, f"its graph does not give {missing[0]}")

    def logits(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Next-token logits of fresh sequences; what follows a row's end is masked and causal, so it changes nothing."""
        ids = padded(sequences, 0, np.int64)
        mask = np.array([[at < len(one) for at in range(ids.shape[1])] for one in sequences], dtype=np.int64)
        feed = self._feed(ids, mask) | self._empty(len(sequences))
        found: NDArray[Any] = self._session.run(["logits"], feed)[0]
        return found.astype(np.float32, copy=False)

    def answer(self, prompts: Sequence[Sequence[int]], max_tokens: int, ended: Ended) -> list[list[int]]:
        """Greedy continuations of prompts of equal length, side by side."""
        written: list[list[int]] = [[] for _ in prompts]
        done = [False] * len(prompts)
        state = self._State(self, np.array(prompts, dtype=np.int64))
        for step in range(max_tokens):
            tokens = state.last.argmax(axis=-1)
            for row, token in enumerate(tokens):
                if not done[row]:
                    written[row].append(int(token))
                    done[row] = ended(written[row])
            if all(done) or step == max_tokens - 1:
                break
            state.step(tokens)
        return written

    def time(self, prompts: NDArray[np.int64], output_tokens: int) -> Timing:
        """Time one load; each step reads the logits, as a server must before it answers."""
        batch, length = prompts.shape
        self._State(self, prompts[:, :1])  # warm-up: buffers and threads
        start = time.perf_counter()
        state = self._State(self, prompts)
        middle = time.perf_counter()
        for step in range(output_tokens):
            state.last.argmax(axis=-1)
            state.step(prompts[:, step % length])
        end = time.perf_counter()
        return Timing(batch * length / (middle - start), batch * output_tokens / (end - middle))

    def ran(self) -> dict[str, int] | None:
        """Operators of the first pass, after onnxruntime's own fusions."""
        return dict(self._ran)

    def close(self) -> None:
        """Free the session."""
        self._session = None

    class _State:
        """Sequences of equal length with their keys and values (or, without past inputs, all their tokens)."""

        def __init__(self, engine: SessionEngine, ids: NDArray[np.int64]) -> None:
            self._engine = engine
            self._ids = ids
            self._past: dict[str, Any] = engine._ort_values(engine._empty(len(ids)))
            self._run(ids)

        def step(self, tokens: NDArray[np.int64]) -> None:
            """Read one more token of each sequence."""
            self._ids = np.concatenate([self._ids, tokens[:, None].astype(np.int64)], axis=1)
            self._run(self._ids[:, -1:] if self._past else self._ids)

        def _run(self, ids: NDArray[np.int64]) -> None:
            engine = self._engine
            feed = engine._ort_values(engine._feed(ids, np.ones_like(self._ids))) | self._past
            names = ["logits", *engine._present.values()]
            logits, *presents = engine._session.run_with_ort_values(names, feed)
            self._past = dict(zip(engine._past, presents, strict=True))
            self.last: NDArray[np.float32] = logits.numpy()[:, -1].astype(np.float32)

    def _feed(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Ids, mask and positions, of those that the graph takes."""
        positions = np.arange(mask.shape[1] - ids.shape[1], mask.shape[1], dtype=np.int64)[None].repeat(len(ids), 0)
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return {
            name: value.astype(_TYPES[self._inputs[name].type]) for name, value in given.items() if name in self._inputs
        }

    def _empty(self, batch: int) -> dict[str, NDArray[Any]]:
        """Keys and values of nothing: zero positions long."""
        size = self._folder.genai_model.get("decoder", {}).get("head_size", 0)
        found = {}
        for name in self._past:
            shape = list(self._inputs[name].shape)
            if len(shape) != 4 or not isinstance(shape[1], int):
                raise ValueError(f"{name} has the shape {shape}, not [batch, heads, positions, size]")
            last = shape[3] if isinstance(shape[3], int) else int(size)
            found[name] = np.zeros((batch, shape[1], 0, last), dtype=_TYPES[self._inputs[name].type])
        return found

    def _ort_values(self, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        return {name: self._ort.OrtValue.ortvalue_from_numpy(value) for name, value in arrays.items()}


def _executed(profile: Path) -> Counter[str]:
    """Operators in a profile of one pass, to their number."""
    found: Counter[str] = Counter()
    for event in json.loads(profile.read_text(encoding="utf-8")):
        arguments = event.get("args") or {}
        if (
            event.get("cat") == "Node"
            and str(event.get("name", "")).endswith("_kernel_time")
            and "op_name" in arguments
        ):
            found[str(arguments["op_name"])] += 1
    return found
