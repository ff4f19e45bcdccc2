"""Tables of rotary positions are told by their numbers, so that no weight hides under their name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize.positions import tells_positions
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16, to_float16
from mlflow_quantgov.artifact.tensors import Tensor, open_safetensors, write_safetensors


def frequencies(size: int, theta: float = 10000.0) -> Any:
    return (theta ** -(np.arange(0, size, 2) / size)).astype(np.float32)


def table(positions: int, size: int, function: Any, theta: float = 10000.0) -> Any:
    """As torch makes it: angles in float32, both halves of a head alike."""
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies(size, theta)
    return np.concatenate([function(angles), function(angles)], axis=1).astype(np.float32)


def stored(folder: Path, values: Any) -> Tensor:
    write_safetensors(folder / "model.safetensors", {"one": np.ascontiguousarray(values)})
    (found,) = open_safetensors(folder / "model.safetensors").tensors.values()
    return found


@pytest.mark.parametrize("function", [np.cos, np.sin])
@pytest.mark.parametrize(("positions", "theta"), [(64, 10000.0), (4096, 10000.0), (131072, 500000.0)])
def test_sines_and_cosines_do(tmp_path: Path, function: Any, positions: int, theta: float) -> None:
    assert tells_positions(stored(tmp_path, table(positions, 64, function, theta)))


@pytest.mark.parametrize("cast", [to_bfloat16, to_float16])
@pytest.mark.parametrize("function", [np.cos, np.sin])
def test_so_do_those_of_16_bits(tmp_path: Path, function: Any, cast: Any) -> None:
    assert tells_positions(stored(tmp_path, cast(table(2048, 32, function))))


def test_frequencies_and_masks_do(tmp_path: Path) -> None:
    scaled = frequencies(64) / np.linspace(1, 8, 32, dtype=np.float32)
    mask = np.triu(np.full((32, 32), -np.inf, dtype=np.float32), 1)
    for at, values in enumerate((frequencies(128)[None, :, None], scaled, mask, np.tril(np.ones((8, 8), np.float32)))):
        (tmp_path / str(at)).mkdir()
        assert tells_positions(stored(tmp_path / str(at), values))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(16, 60),
    st.integers(2, 40),
    st.sampled_from([0.01, 0.05, 0.3, 1.0]),
    st.sampled_from(["plain", "first row of cosines", "first row of sines", "flat"]),
    st.integers(0, 2**32 - 1),
)
@example(16, 2, 0.01, "plain", 3)
def test_weights_do_not(
    tmp_path_factory: Any, rows: int, columns: int, spread: float, disguise: str, seed: int
) -> None:
    weights = (np.random.default_rng(seed).standard_normal((rows, columns)) * spread).astype(np.float32)
    if disguise.startswith("first"):
        weights[:2] = table(2, 2 * columns, np.cos if "cosines" in disguise else np.sin)[:, :columns]
    values = weights.reshape(-1) if disguise == "flat" else weights
    assert not tells_positions(stored(tmp_path_factory.mktemp("weights"), values))


def test_one_row_that_does_not_turn_gives_it_away(tmp_path: Path) -> None:
    values = table(512, 64, np.cos)
    values[300] = np.random.default_rng(0).standard_normal(64) * 0.3
    assert not tells_positions(stored(tmp_path, values))
