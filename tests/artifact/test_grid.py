"""Weights that were rounded to a few bits and written back are noticed; trained weights are not."""

from __future__ import annotations

from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.formats.grid import lies_on_grid, on_grid
from mlflow_quantgov.artifact.tensors import Tensor

STORAGE = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
DISTRIBUTIONS = ("normal", "laplace", "uniform", "heavy", "pruned", "clipped", "gains", "rows")
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def draw(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Weights as training leaves them, in float32."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=shape)
    drawn = {
        "normal": normal * 0.02,
        "laplace": rng.laplace(size=shape) * 0.02,
        "uniform": rng.uniform(-0.04, 0.04, size=shape),
        "heavy": rng.standard_t(3, size=shape) * 0.02,
        "pruned": normal * (rng.random(shape) < 0.4),
        "clipped": np.clip(normal, -1.5, 1.5) * 0.02,
        "gains": 1 + normal * 0.01,
        "rows": normal * np.exp(rng.normal(size=(shape[0], 1))),
    }
    return drawn[kind].astype(np.float32)


def store(folder: Path, weight: np.ndarray, dtype: str, name: str = "w") -> Tensor:
    """A tensor of that storage type, on disk."""
    data = np.ascontiguousarray(weight.astype(STORAGE[dtype])).tobytes()
    (folder / name).write_bytes(data)
    return Tensor(name, dtype, weight.shape, folder / name, 0, len(data))


def round_to(weight: np.ndarray, bits: int, group: int, symmetric: bool) -> np.ndarray:
    """Round to nearest in groups along the input, and back to floats."""
    blocks = weight.reshape(weight.shape[0], -1, group or weight.shape[1])
    if symmetric:
        half = 2 ** (bits - 1)
        scale = np.abs(blocks).max(axis=2, keepdims=True) / (half - 1 or 1)
        back = np.clip(np.rint(blocks / scale), -half, half - 1) * scale
    else:
        low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
        scale = (high - low) / (2**bits - 1)
        back = np.rint((blocks - low) / scale) * scale + low
    return back.reshape(weight.shape)


@FUZZ
@given(
    st.sampled_from(DISTRIBUTIONS),
    st.sampled_from(sorted(STORAGE)),
    st.sampled_from(sorted(STORAGE)),
    st.sampled_from([(32, 32), (64, 96), (256, 512), (17, 48)]),
    st.integers(0, 2**32),
)
def test_trained_weights_are_not_on_a_grid(
    tmp_path: Path, kind: str, source: str, dtype: str, shape: tuple[int, int], seed: int
) -> None:
    weight = draw(kind, shape, seed).astype(STORAGE[source]).astype(np.float32)
    assert not on_grid(store(tmp_path, weight, dtype))


@FUZZ
@given(
    st.sampled_from(["normal", "laplace", "heavy"]),
    st.sampled_from(sorted(STORAGE)),
    st.integers(2, 8),
    st.sampled_from([32, 64, 128, 0]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_rounded_weights_are(
    tmp_path: Path, kind: str, dtype: str, bits: int, group: int, symmetric: bool, turned: bool, seed: int
) -> None:
    back = round_to(draw(kind, (256, 512), seed), bits, group, symmetric)
    assert on_grid(store(tmp_path, back.T if turned else back, dtype))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"])
@pytest.mark.parametrize("dtype", sorted(STORAGE))
def test_dequantized_gguf_weights_are(tmp_path: Path, kind: str, dtype: str) -> None:
    storage = gguf.GGMLQuantizationType[kind]
    back = gguf.quants.dequantize(gguf.quants.quantize(draw("normal", (128, 256), 1), storage), storage)
    assert on_grid(store(tmp_path, back, dtype))


def test_constant_and_tiny_matrices_say_nothing(tmp_path: Path) -> None:
    for weight in (np.zeros((64, 64)), np.ones((64, 64)), np.eye(64), np.full((16, 16), -0.5)):
        assert not on_grid(store(tmp_path, weight, "F32"))


def test_a_third_of_the_matrices_is_enough(tmp_path: Path) -> None:
    plain = {f"p{i}": store(tmp_path, draw("normal", (64, 64), i), "BF16", f"p{i}") for i in range(6)}
    rounded = {
        f"r{i}": store(tmp_path, round_to(draw("normal", (64, 64), i), 4, 32, True), "BF16", f"r{i}") for i in range(3)
    }
    norms = {f"n{i}": store(tmp_path, draw("gains", (1, 64), i)[0], "BF16", f"n{i}") for i in range(9)}
    assert not lies_on_grid(plain | norms)
    assert not lies_on_grid(norms)
    assert lies_on_grid(plain | rounded | norms)
