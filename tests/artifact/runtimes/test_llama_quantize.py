from __future__ import annotations

import gguf
import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.gguf_blocks import DECODERS
from mlflow_quantgov.artifact.runtimes.llama_cpp import quantize_gguf
from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import FILE_TYPES, NEED_IMPORTANCE, fitting_type, quantized
from mlflow_quantgov.artifact.tensors.ggml_types import NUMBER_OF
from mlflow_quantgov.errors import ArtifactError, UsageError

VALUES = np.random.default_rng(7).normal(0, 0.05, (6, 512)).astype(np.float32)


def back(data, name):
    if name == "Q1_0":  # gguf does not read it yet
        return DECODERS[name](data.reshape(-1, 18)).values.reshape(VALUES.shape)
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).reshape(VALUES.shape)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_simple_types_agree_with_an_independent_implementation(name):
    theirs = gguf.quants.quantize(VALUES, gguf.GGMLQuantizationType[name])
    ours = quantized(VALUES, name)
    assert ours.shape == theirs.shape
    # Scales are rounded alike; a tie may fall to either side.
    step = np.abs(VALUES).max() / {"Q8_0": 127, "Q4_0": 8, "Q4_1": 7, "Q5_0": 16, "Q5_1": 15}[name]
    assert np.abs(back(ours, name) - back(theirs, name)).max() <= 1.01 * step
    assert np.mean(ours == theirs) > 0.97


def test_fewer_bits_lie_farther_from_the_parent():
    errors = [np.square(back(quantized(VALUES, name), name) - VALUES).mean() for name in
              ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")]  # fmt: skip
    assert errors == sorted(errors)
    assert 0 < errors[0] < 1e-3 * np.square(VALUES).mean()
    assert errors[-1] > 0.01 * np.square(VALUES).mean()


# Some search their table for seconds, or set it up for ten (the first of IQ1).
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=[pytest.mark.slow] if one in {"IQ1_S", "IQ1_M", "IQ2_S", "IQ2_XS"} else [])
        for one in sorted(FILE_TYPES)
    ],
)
def test_every_offered_type_quantizes(name):
    importance = np.linspace(1, 4, 512, dtype=np.float32)
    error = np.square(back(quantized(VALUES, name, importance), name) - VALUES).mean() / np.square(VALUES).mean()
    # Ternary types take the largest weight for their only size: they are for models that were trained that way.
    assert error < {"TQ1_0": 0.7, "TQ2_0": 0.7, "Q1_0": 0.4, "IQ1_S": 0.3, "IQ1_M": 0.3}.get(name, 0.2)


def test_importances_count_and_are_asked_for_where_the_library_stops_without():
    asks = {name for name in FILE_TYPES if library().c.ggml_quantize_requires_imatrix(NUMBER_OF[name])}
    assert asks == NEED_IMPORTANCE
    for name in asks:
        with pytest.raises(UsageError, match="needs the importance"):
            quantized(VALUES, name)
    importance = np.where(np.arange(512) < 256, 100, 1).astype(np.float32)[::-1].reshape(2, 256).T.reshape(-1)
    plain, weighted = (back(quantized(VALUES, "Q2_K", one), "Q2_K") - VALUES for one in (None, importance))
    loud = importance == 100
    assert np.square(weighted[:, loud]).mean() < np.square(plain[:, loud]).mean()
    assert np.square(weighted[:, ~loud]).mean() > np.square(plain[:, ~loud]).mean()


@pytest.mark.parametrize("wrong", [np.ones(511), np.ones((2, 256)), -np.ones(512), np.full(512, np.nan)])
def test_importances_that_the_library_would_read_wrongly_are_refused(wrong):
    with pytest.raises(UsageError, match="512 numbers are due"):
        quantized(VALUES, "IQ2_XS", wrong)


def test_values_that_are_not_finite_are_refused():
    broken = VALUES.copy()
    broken[3, 3] = np.nan
    with pytest.raises(ArtifactError, match="not finite"):
        quantized(broken, "Q8_0")


@pytest.mark.parametrize(
    ("wanted", "row", "given"),
    [("Q4_K", 512, "Q4_K"), ("Q4_K", 576, "Q5_0"), ("Q2_K", 576, "IQ4_NL"), ("Q6_K", 96, "Q8_0"),
     ("Q4_0", 96, "Q4_0"), ("Q8_0", 33, "F16"), ("Q2_K", 40, "F16"), ("IQ2_XS", 320, "IQ4_NL"), ("TQ2_0", 320, "Q4_0"), ("NVFP4", 96, "Q4_0"),
     ("Q1_0", 384, "Q1_0")],
)  # fmt: skip
def test_rows_that_do_not_fit_the_block_fall_back(wanted, row, given):
    assert fitting_type(wanted, row) == given


def test_a_file_keeps_metadata_and_vectors_and_says_what_it_is(skills_twin, tmp_path):
    done = quantize_gguf(skills_twin, tmp_path / "q.gguf", "Q2_K")
    before, after = gguf.GGUFReader(skills_twin), gguf.GGUFReader(done.path)
    kept = {key for key in before.fields if not key.startswith("GGUF.")} - {"general.file_type"}
    assert all(after.fields[key].contents() == before.fields[key].contents() for key in kept)
    assert after.fields["general.file_type"].contents() == 10
    types = {tensor.name: tensor.tensor_type.name for tensor in after.tensors}
    assert types["token_embd.weight"] == "Q6_K"
    assert types["blk.0.attn_norm.weight"] == "F32"
    assert types["blk.1.ffn_down.weight"] == "Q2_K"
    assert done.tensor_types == {"F32": 5, "Q6_K": 1, "Q2_K": 14}
    assert done.bytes == done.path.stat().st_size < skills_twin.stat().st_size / 3
    assert [tensor.name for tensor in after.tensors] == [tensor.name for tensor in before.tensors]


def test_the_output_type_can_be_chosen(skills_twin, tmp_path):
    done = quantize_gguf(skills_twin, tmp_path / "q.gguf", "Q2_K", output_type="Q2_K")
    assert done.tensor_types == {"F32": 5, "Q2_K": 15}


def test_quantizing_twice_unknown_types_and_the_source_as_destination_are_refused(skills_twin, skills_q2, tmp_path):
    with pytest.raises(ArtifactError, match="quantized already"):
        quantize_gguf(skills_q2, tmp_path / "x.gguf", "Q8_0")
    with pytest.raises(UsageError, match="no type"):
        quantize_gguf(skills_twin, tmp_path / "x.gguf", "Q9_0")
    with pytest.raises(UsageError, match="needs the importance"):
        quantize_gguf(skills_twin, tmp_path / "x.gguf", "IQ1_S")
    with pytest.raises(UsageError, match="same file"):
        quantize_gguf(skills_twin, skills_twin, "Q8_0")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(ArtifactError, match="does not read"):
        quantize_gguf(tmp_path / "bad.gguf", tmp_path / "x.gguf", "Q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.gguf"]
