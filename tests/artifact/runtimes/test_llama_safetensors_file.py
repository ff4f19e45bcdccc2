from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored, read_folder, write_file
from mlflow_quantgov.errors import ArtifactError


def write_raw(folder, header: bytes, data: bytes = b"", length: int | None = None):
    size = len(header) if length is None else length
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + header + data)


@settings(max_examples=30, deadline=None)
@given(values=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32)))
def test_what_is_written_reads_back_bit_by_bit_here_and_in_the_safetensors_library(tmp_path_factory, values):
    from safetensors.numpy import load_file

    folder = tmp_path_factory.mktemp("round")
    write_file(folder / "model.safetensors", {"a": Stored("F32", values.shape, values.view(np.uint32))})
    assert np.array_equal(read_folder(folder)["a"].bits, values.view(np.uint32))
    assert np.array_equal(load_file(folder / "model.safetensors")["a"].view(np.uint32), values.view(np.uint32))


def test_bfloat16_and_float16_widen_exactly(tmp_path):
    half = np.array([1.5, -0.0, 65504.0, 6e-8], dtype=np.float16)
    brain = np.array([0x3FC0, 0x8000, 0x7F7F, 0x0001], dtype=np.uint16)
    write_file(
        tmp_path / "model.safetensors",
        {"half": Stored("F16", (4,), half.view(np.uint16)), "brain": Stored("BF16", (2, 2), brain.reshape(2, 2))},
    )
    found = read_folder(tmp_path)
    assert np.array_equal(found["half"].widened().astype(np.float16).view(np.uint16), half.view(np.uint16))
    assert np.array_equal(found["brain"].widened().view(np.uint32) >> 16, brain.reshape(2, 2))


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"not json", "not JSON"),
        (b"[" * 3000 + b"]" * 3000, "not JSON|not an object"),
        (b"[]", "not an object"),
        (json.dumps({"a": {**ENTRY, "data_offsets": [0, 800]}}).encode(), "outside"),
        (json.dumps({"a": {**ENTRY, "data_offsets": [4, 0]}}).encode(), "outside"),
        (json.dumps({"a": {**ENTRY, "shape": [3]}}).encode(), "bytes"),
        (json.dumps({"a": {**ENTRY, "shape": [-1, -2]}}).encode(), "outside"),
        (json.dumps({"a": {**ENTRY, "dtype": "I32"}}).encode(), "not full precision"),
        (json.dumps({"a": {"dtype": "F32"}}).encode(), "malformed"),
        (json.dumps({"a": 3}).encode(), "malformed"),
    ],
)
def test_a_malformed_file_is_one_clear_error(tmp_path, header, problem):
    write_raw(tmp_path, header, b"\0" * 8)
    with pytest.raises(ArtifactError, match=problem):
        read_folder(tmp_path)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path):
    write_raw(tmp_path, b"{}", length=2**62)
    with pytest.raises(ArtifactError, match="longer than the file"):
        read_folder(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "model.safetensors").write_bytes(data)
    with contextlib.suppress(ArtifactError):
        read_folder(folder)


def test_an_empty_folder_and_a_name_stored_twice_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="holds no safetensors"):
        read_folder(tmp_path)
    one = {"a": Stored("F32", (1,), np.zeros(1, np.uint32))}
    write_file(tmp_path / "x.safetensors", one)
    write_file(tmp_path / "y.safetensors", one)
    with pytest.raises(ArtifactError, match="stored twice"):
        read_folder(tmp_path)
