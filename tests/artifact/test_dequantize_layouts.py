"""HQQ, quanto and AutoRound against what the libraries themselves make of their codes (`make_layouts.py`)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import PROJECTIONS, parent_weight, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.dequantize.numbers import rounding_of
from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.artifact.tensors import open_safetensors, write_safetensors
from mlflow_quantgov.artifact.tensors.safetensors import BITS_PER_ELEMENT
from mlflow_quantgov.errors import ArtifactError

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
LAYOUTS = {name: dict(np.load(ARTIFACTS / f"{name}.npz")) for name in ("hqq-layouts", "quanto-layouts")}
MATRICES = [
    (name, key.removeprefix("back.")) for name, one in LAYOUTS.items() for key in one if key.startswith("back.")
]

BROKEN = ["fp8-block", "modelopt-fp8-kv", "modelopt-nvfp4", "mxfp4-gpt-oss", "hqq-w4g32", "hqq-w3g32-axis0", "hqq-layouts",
          "quanto-int4", "quanto-layouts", "autoround-w4g32-asym", "autoround-w4g32-mixed"]  # fmt: skip


@pytest.mark.parametrize(("folder", "matrix"), MATRICES)
def test_numbers_are_those_of_the_library(folder: str, matrix: str) -> None:
    expected = LAYOUTS[folder][f"back.{matrix}"]
    found = matrices(ARTIFACTS / folder)[f"{matrix}.weight"]
    # The library computes in the model's type; hqq was asked for float32.
    exact = 2.0**-22 if folder.startswith("hqq") or matrix.endswith("32") else 2.0**-7
    exact = 2.0**-10 if matrix.endswith("_float16") else exact
    np.testing.assert_allclose(whole(found).values, expected, rtol=0, atol=exact * np.abs(expected).max())


@pytest.mark.parametrize(("folder", "matrix"), MATRICES)
def test_weights_lie_in_the_cells_of_their_codes(folder: str, matrix: str) -> None:
    """Every one: rounding is to the nearest, HQQ's too, whose solver only moves the grid before."""
    weights = LAYOUTS[folder][f"weight.{matrix}"].astype(np.float32)
    found = matrices(ARTIFACTS / folder)[f"{matrix}.weight"]
    block = whole(found)
    assert block.below is not None and block.above is not None
    difference = weights - block.values
    width = np.minimum(block.below, block.above)
    tolerance = (np.abs(block.values) + 2 * width) * found.slack + 1e-4 * width
    tolerance += block.blur if block.blur is not None else 0
    assert (difference <= block.above + tolerance).all()
    assert (difference >= -block.below - tolerance).all()
    # A tolerance as wide as the cell would let anything through.
    assert tolerance.mean() < (0.6 if found.bits and found.bits >= 8 else 0.2) * width.mean()


def parent_of(folder: str, path: Path, change: float = 0.0) -> Path:
    """The parent of all matrices of a folder, perhaps changed by a part of its norm."""
    random = np.random.default_rng(0)
    tensors = {}
    for key, one in LAYOUTS[folder].items():
        if key.startswith("weight."):
            step = random.standard_normal(one.shape)
            moved = one + step * change * np.linalg.norm(one.astype(np.float64)) / np.linalg.norm(step)
            tensors[f"{key.removeprefix('weight.')}.weight"] = moved.astype(np.float32)
    plain = {name: one for name, one in matrices(ARTIFACTS / folder).items() if one.bits is None}
    tensors |= {name: whole(one).values.reshape(one.shape) for name, one in plain.items()}
    path.mkdir()
    write_safetensors(path / "model.safetensors", tensors)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("folder", LAYOUTS)
def test_the_parent_of_all_layouts_is_proved_and_a_changed_one_is_not(folder: str, tmp_path: Path) -> None:
    found = compare(ARTIFACTS / folder, parent_of(folder, tmp_path / "true"))
    assert all(one.outside == 0 for one in found.layers)
    # HQQ's one bit keeps signs, and a size that says nothing of the weights': any factor would fit as well.
    assert {one.bits for one in found.layers if one.problem} <= ({1} if folder == "hqq-layouts" else set())
    assert found.verdict == ("unproved" if folder == "hqq-layouts" else "proved")
    change = 1.5 * max(one.resolution or 0.0 for one in found.layers)
    false = compare(ARTIFACTS / folder, parent_of(folder, tmp_path / "false", change))
    assert false.verdict != "proved"
    # Each matrix by itself shows such a change, or says that it sees no change of that size.
    assert all(one.problem or (one.resolution or 0) > change for one in false.layers if one.bits is not None)


def test_a_matrix_whose_shape_nothing_tells_is_not_dequantized(tmp_path: Path, artifacts: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((artifacts / "quanto-int2-groups" / "model.safetensors").read_bytes())
    config = json.loads((artifacts / "quanto-int2-groups" / "config.json").read_text()) | {"intermediate_size": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = matrices(tmp_path)["model.layers.0.mlp.down_proj.weight"]
    assert found.problem is not None and "shape" in found.problem


@given(
    exponent=st.integers(-12, 12),
    fraction=st.floats(1, 2, exclude_max=True, width=32),
    sign=st.sampled_from([-1, 1]),
)
def test_rounding_errors_are_no_larger_than_said(exponent: int, fraction: float, sign: int) -> None:
    import ml_dtypes

    value = np.array([sign * fraction * 2.0**exponent], dtype=np.float32)
    for kind, precision in ((ml_dtypes.bfloat16, 2.0**-8), (np.float16, 2.0**-11)):
        most = rounding_of(value, precision)
        assert np.abs(value.astype(kind).astype(np.float32) - value) <= most
        assert most <= np.abs(value) * precision


def outcome(artifacts: Path, name: str) -> Descent:
    return compare(artifacts / name, artifacts / "parent-bf16")


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_auto_round_reads_each_packing(artifacts: Path, projection: str) -> None:
    name = f"model.layers.0.{projection}.weight"
    weight = parent_weight(artifacts, name)
    for folder in ("autoround-w4g32-mixed", "autoround-w4g32-asym", "autoround-w4g32-tuned"):
        found: Any = matrices(artifacts / folder)[name]
        assert found.kind == "auto-round"
        assert np.linalg.norm(whole(found).values - weight) < 0.15 * np.linalg.norm(weight)


def test_tuned_codes_prove_nothing_and_refute_nothing(artifacts: Path) -> None:
    found = outcome(artifacts, "autoround-w4g32-tuned")
    assert (found.verdict, len([one for one in found.layers if one.problem])) == ("unproved", 7)
    assert all("AutoRound" in one.problem for one in found.layers if one.problem)
    assert all(one.sqnr_db is not None and 18 < one.sqnr_db < 22 for one in found.layers if one.bits is not None)


@pytest.mark.parametrize("name", ["awq-gemv", "ct-marlin24-w4", "ct-sparse24-fp8"])
def test_layouts_of_one_kernel_stay_unproved(artifacts: Path, name: str) -> None:
    found = outcome(artifacts, name)
    assert (found.verdict, "cannot be dequantized here" in found.reason) == ("unproved", True)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_broken_tensors_are_an_error_and_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes, another type of the same width, fewer rows: refused, or judged as what they are."""
    name = data.draw(st.sampled_from(BROKEN))
    source = ARTIFACTS / name / "model.safetensors"
    entries = {
        key: (one.dtype, list(one.shape), one.raw().tobytes()) for key, one in open_safetensors(source).tensors.items()
    }
    key = data.draw(st.sampled_from(sorted(one for one in entries if "proj" in one or "part" in one)))
    kind, shape, content = entries[key]
    change = data.draw(st.sampled_from(["bytes", "type", "rows"]))
    if change == "bytes":
        content = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).bytes(len(content))
    elif change == "type":
        same = [one for one, bits in BITS_PER_ELEMENT.items() if bits == BITS_PER_ELEMENT[kind]]
        kind = data.draw(st.sampled_from(same))
    elif shape and shape[0] > 1:
        rows = data.draw(st.integers(1, shape[0] - 1))
        content, shape = content[: len(content) * rows // shape[0]], [rows, *shape[1:]]
    folder = tmp_path_factory.mktemp("broken")
    write_entries(folder / "model.safetensors", entries | {key: (kind, shape, content)})
    (folder / "config.json").write_bytes((ARTIFACTS / name / "config.json").read_bytes())
    parent = "gpt-oss-parent" if "oss" in name else "parent-bf16"
    with contextlib.suppress(ArtifactError):
        for one in matrices(folder).values():
            if one.problem is None:
                assert one.block(0, one.rows).values.shape == (one.rows, one.columns)
        assert compare(folder, ARTIFACTS / parent).verdict in {"proved", "unproved", "refuted"}


def write_entries(path: Path, entries: dict[str, tuple[str, list[int], bytes]]) -> None:
    """A safetensors file of any types."""
    header, body = {}, b""
    for name, (kind, shape, content) in entries.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
