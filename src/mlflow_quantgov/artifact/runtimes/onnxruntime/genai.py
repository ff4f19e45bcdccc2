"""A folder of onnxruntime-genai: its own loop over keys and values, as it is served."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Timing
from mlflow_quantgov.artifact.runtimes.onnxruntime.engine import Ended, Engine, padded
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE, OnnxFolder, not_loaded
from mlflow_quantgov.artifact.runtimes.onnxruntime.settings import OnnxSettings
from mlflow_quantgov.errors import require

_PADDING = -1
"""Padding is told from text by its id alone, so it has to be one that no text has. -1 is a legal index of a lookup."""
_GREEDY: dict[str, Any] = {
    "do_sample": False, "num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0, "length_penalty": 1.0,
}  # fmt: skip
"""Greedy decoding, whatever the model's files ask for: both sides must answer without chance."""


class GenaiEngine(Engine):
    """One model loaded by onnxruntime-genai on the CPU.

    Args:
        folder: The model folder with its genai_config.json.
        settings: Threads.

    Raises:
        MissingExtraError: `onnxruntime_genai` is not installed.
        ArtifactError: The folder does not load.
    """

    name = "genai"
    mixed_lengths = True

    def __init__(self, folder: OnnxFolder, settings: OnnxSettings) -> None:
        self._genai: Any = require("onnxruntime_genai", extra="onnx", purpose=PURPOSE)
        self.library = f"onnxruntime-genai {importlib.metadata.version('onnxruntime-genai')}"
        options = {"intra_op_num_threads": settings.threads, "inter_op_num_threads": 1, "log_severity_level": 3}
        overlay = {"model": {"pad_token_id": _PADDING, "decoder": {"session_options": options}}}
        try:
            config = self._genai.Config(str(folder.root))
            # Providers of other hardware in the file would change what runs: this runtime measures the CPU.
            config.clear_providers()
            config.overlay(json.dumps(overlay))
            self._model: Any = self._genai.Model(config)
        except Exception as error:
            raise not_loaded(folder.root, " ".join(str(error).split())[:300]) from error

    def logits(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Next-token logits of fresh sequences."""
        ids = padded(sequences, _PADDING, np.int32)
        generator = self._generator(ids, 1)
        # A copy: the buffer belongs to the generator.
        return np.array(generator.get_output("logits"), dtype=np.float32)

    def answer(self, prompts: Sequence[Sequence[int]], max_tokens: int, ended: Ended) -> list[list[int]]:
        """Greedy continuations side by side."""
        ids = padded(prompts, _PADDING, np.int32)
        generator = self._generator(ids, max_tokens)
        written: list[list[int]] = [[] for _ in prompts]
        done = [False] * len(prompts)
        for _ in range(max_tokens):
            if generator.is_done():
                break
            generator.generate_next_token()
            for row, token in enumerate(generator.get_next_tokens()):
                if not done[row]:
                    written[row].append(int(token))
                    done[row] = ended(written[row])
            if all(done):
                break
        return written

    def time(self, prompts: NDArray[np.int64], output_tokens: int) -> Timing:
        """Time one load; the end of text is forbidden, so that every step is taken."""
        batch, length = prompts.shape
        ids = prompts.astype(np.int32)
        self._generator(ids[:, :1], 1)  # warm-up: buffers and threads
        generator = self._empty(batch, length + output_tokens + 1, min_length=length + output_tokens + 1)
        start = time.perf_counter()
        generator.append_tokens(ids)
        middle = time.perf_counter()
        # The first token needs no pass of its own: the prefill has given its logits.
        for _ in range(output_tokens + 1):
            generator.generate_next_token()
        end = time.perf_counter()
        return Timing(batch * length / (middle - start), batch * output_tokens / (end - middle))

    def ran(self) -> dict[str, int] | None:
        """None: onnxruntime-genai does not tell which operators it ran."""
        return None

    def close(self) -> None:
        """Free the model."""
        self._model = None

    def _generator(self, ids: NDArray[np.int32], room: int) -> Any:
        """A generator that has read prompts [batch, length], with room for more tokens."""
        generator = self._empty(ids.shape[0], ids.shape[1] + room)
        generator.append_tokens(np.ascontiguousarray(ids))
        return generator

    def _empty(self, batch: int, length: int, min_length: int = 0) -> Any:
        """A generator that has read nothing."""
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(batch_size=batch, max_length=length, min_length=min_length, **_GREEDY)
        return self._genai.Generator(self._model, parameters)
