"""What the linear layers of a full-precision model read: hooks on a model that transformers loads, and pooled statistics."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.artifact.runtimes.transformers_runtime import DEFAULT_CONTEXT, TransformersAdapter
from mlflow_quantgov.artifact.runtimes.transformers_weights import PURPOSE, load, not_loaded
from mlflow_quantgov.errors import EvidenceError, require

FEATURES = 64
"""Numbers per document and input, whatever the width of the layer."""
_SEED = 20_260
_FLOOR = 1e-6
"""Of the mean over channels: below it a channel counts as silent, so that zeros have a logarithm."""
_TRIAL = 4
"""Tokens of the pass in which it is seen which layers read the same input."""


@dataclass(frozen=True)
class Reading:
    """One document, as the layers read it."""

    features: NDArray[np.float32]
    """Projected logarithms of each channel's mean square, shape [inputs, FEATURES]."""
    vectors: tuple[NDArray[np.float32], ...]
    """Of each input the vectors at the positions that were asked for, shapes [positions, width]."""


def reason_not_observable(parent: Path) -> str | None:
    """None where the layers of this model can be observed here, else why not, in one sentence without its end."""
    reason = TransformersAdapter().reason_not_loadable(parent)
    return f"transformers does not run the parent here: {reason}" if reason else None


class Observer:
    """A model whose linear layers are watched, all but the output matrix. Layers that read one input are watched once.

    Args:
        path: Folder of a full-precision model.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ArtifactError: The folder does not load, or holds no linear layers.
    """

    def __init__(self, path: Path) -> None:
        self._torch: Any = require("torch", extra="transformers", purpose=PURPOSE)
        device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self.dtype = "float32" if device == "cpu" and _fits_as_float32(path) else "auto"
        model, self._tokenizer = load(path, dtype=self.dtype, device=device)
        self._path, self._device = path, device
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or DEFAULT_CONTEXT)
        self._base = model.base_model
        self._names = _linear_names(model)
        self.layers = self._groups()
        self.inputs = max(self.layers.values(), default=-1) + 1
        if not self.inputs:
            raise not_loaded(path, "no linear layer of it reads what its tokens give")
        leaders = {index: name for name, index in reversed(self.layers.items())}
        self._seen: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._positions: list[int] = []
        for index, name in leaders.items():
            self._names[name].register_forward_pre_hook(self._keep(index))
        self._leaders = leaders
        self.widths = tuple(
            int(self._names[leaders[index]].weight.shape[self._axis(leaders[index])]) for index in range(self.inputs)
        )

    def encode(self, text: str, most: int) -> list[int]:
        """The first tokens of a text, as the model's own tokenizer begins it."""
        with quiet():
            return [int(token) for token in self._tokenizer(text)["input_ids"][: min(most, self.context)]]

    def read(self, tokens: Sequence[int], positions: Sequence[int]) -> Reading:
        """Run one document.

        The first position is left out of the statistics: what many models put there is large and the same for all.

        Args:
            tokens: At least two token ids.
            positions: Positions whose input vectors are kept.

        Raises:
            EvidenceError: A layer reads NaN or infinite numbers.
        """
        self._positions = list(positions)
        self._run(tokens)
        features = np.empty((self.inputs, FEATURES), dtype=np.float32)
        for index in range(self.inputs):
            squares, _ = self._seen[index]
            if not np.isfinite(squares).all():
                raise EvidenceError(
                    f"The parent's layer {self._leaders[index]} reads NaN or infinite numbers.",
                    why="Such a model is broken or overflows, and no distance can be stated.",
                    fix="quantgov calibration URI --calibration FILE --production FILE --no-activations",
                )
            features[index] = project(squares)
        return Reading(features, tuple(self._seen[index][1] for index in range(self.inputs)))

    def library(self) -> str:
        """What ran it, with version and arithmetic."""
        dtype = str(next(self._base.parameters()).dtype).removeprefix("torch.")
        return f"transformers {importlib.metadata.version('transformers')}, {dtype}, {self._device}"

    def _run(self, tokens: Sequence[int]) -> None:
        ids = self._torch.tensor([list(tokens)], device=self._device)
        with self._torch.inference_mode():
            self._base(input_ids=ids, use_cache=False)

    def _keep(self, index: int) -> Callable[[Any, tuple[Any, ...]], None]:
        def hook(_: Any, given: tuple[Any, ...]) -> None:
            # Pooled at once, so that no more than one layer's input is held beside the model.
            rows = given[0].detach().reshape(-1, self.widths[index]).float()
            squares = rows[1:].square().mean(dim=0).cpu().numpy()
            self._seen[index] = squares, rows[self._positions].cpu().numpy()

        return hook

    def _groups(self) -> dict[str, int]:
        """Layers in the order in which they run, with the number of the input that each reads.

        Only what reads every token once is watched: an expert to which some are sent is not.
        """
        order: list[tuple[str, Any]] = []
        hooks = [
            module.register_forward_pre_hook(lambda _, given, name=name: order.append((name, given[0])))
            for name, module in self._names.items()
        ]
        try:
            with quiet():
                self._run(list(range(_TRIAL)))
        except Exception as error:
            raise not_loaded(self._path, f"its first pass fails: {type(error).__name__}: {str(error)[:200]}") from error
        finally:
            for hook in hooks:
                hook.remove()
        names = [name for name, _ in order]
        whole = [
            (name, one)
            for name, one in order
            if names.count(name) == 1 and one.dim() >= 2 and one.shape[0] * one.shape[-2] == _TRIAL
        ]
        inputs: dict[int, int] = {}
        return {name: inputs.setdefault(id(one), len(inputs)) for name, one in whole}

    def _axis(self, name: str) -> int:
        """Axis of the weight along which the inputs lie."""
        return 0 if type(self._names[name]).__name__ == "Conv1D" else 1


def project(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithms of mean squares per channel, cut down to `FEATURES` by random directions that depend on the width alone.

    Distances between documents survive that up to some percent (Johnson and Lindenstrauss 1984).

    Args:
        squares: Mean square of every channel, shape [width].
    """
    values = squares.astype(np.float64)
    logs = np.log(values + _FLOOR * float(values.mean()) + np.finfo(np.float64).tiny)
    return np.asarray(logs @ _directions(len(squares)), dtype=np.float32)


@cache
def _directions(width: int) -> NDArray[np.float64]:
    generator = np.random.default_rng([_SEED, width])
    return np.asarray(generator.standard_normal((width, FEATURES)) / np.sqrt(width))


def _linear_names(model: Any) -> dict[str, Any]:
    """Linear layers by the names that their weights have in the files, without the output matrix."""
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if module is not output and type(module).__name__ in {"Linear", "Conv1D"} and module.weight.dim() == 2
    }


def _fits_as_float32(path: Path) -> bool:
    """Whether twice the files fit into half of the memory: on most processors float32 is several times as fast."""
    stored = sum(one.stat().st_size for one in path.glob("*.safetensors"))
    return 2 * stored < 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
