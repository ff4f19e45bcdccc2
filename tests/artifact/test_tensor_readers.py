"""The readers of safetensors and GGUF: whatever the bytes, an answer or one ArtifactError, within bounds."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from bounded import accepts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import GgufArray, open_safetensors, read_gguf, read_safetensors, write_safetensors
from mlflow_quantgov.artifact.tensors.ggml_types import FILE_TYPES, TYPES
from mlflow_quantgov.errors import ArtifactError

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
SAFETENSORS = (ARTIFACTS / "gptq-w4g32" / "model.safetensors").read_bytes()
GGUF = (ARTIFACTS / "tiny-Q4_0.gguf").read_bytes()
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opens(path: Path, data: bytes) -> bool:
    """Whether a file is accepted; anything but an ArtifactError fails the test, and so does much memory."""
    path.write_bytes(data)
    return accepts(lambda: read_gguf(path) if path.suffix == ".gguf" else open_safetensors(path))


def safetensors(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@FUZZ
@given(st.binary(max_size=400), st.sampled_from([".safetensors", ".gguf"]))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes, suffix: str) -> None:
    assert not opens(tmp_path / f"x{suffix}", (b"GGUF" if suffix == ".gguf" else b"") + data) or data[8:9] == b"{"


@FUZZ
@given(st.data())
def test_a_truncated_file_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole, suffix = data.draw(st.sampled_from([(SAFETENSORS, ".safetensors"), (GGUF, ".gguf")]))
    # GGUF pads its last tensor; cutting padding alone loses nothing.
    cut = data.draw(st.integers(0, len(whole) - 64))
    assert not opens(tmp_path / f"x{suffix}", whole[:cut])


@FUZZ
@given(st.data())
def test_mutated_headers_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    whole, suffix = data.draw(st.sampled_from([(SAFETENSORS, ".safetensors"), (GGUF, ".gguf")]))
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"x{suffix}"
    if opens(path, bytes(changed)):
        try:
            inspect(path)
        except ArtifactError as error:
            assert error.fix


@FUZZ
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=12),
        st.tuples(st.sampled_from(["<f4", "<f2", "<i8", "|u1"]), st.lists(st.integers(0, 5), max_size=4)),
        max_size=6,
    )
)
def test_what_is_written_is_read_back(tmp_path: Path, described: dict[str, tuple[str, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: (rng.random(shape) * 100).astype(dtype) for name, (dtype, shape) in described.items()}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    found = dict(read_safetensors(tmp_path / "x.safetensors"))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        safetensors([]),
        safetensors(b"{}".replace(b"}", b"")),
        safetensors({"a": entry([1], 0, 4)}),
        safetensors({"a": entry([1], 0, 4)}, b"\0" * 5),
        safetensors({"a": entry([2**40, 2**40], 0, 4)}, b"\0" * 4),
        safetensors({"a": entry([-1], 0, 4)}, b"\0" * 4),
        safetensors({"a": entry([1.0], 0, 4)}, b"\0" * 4),  # type: ignore[list-item]
        safetensors({"a": entry([True], 0, 4)}, b"\0" * 4),
        safetensors({"a": entry([1], 4, 0)}, b"\0" * 4),
        safetensors({"a": entry([1], 0, 4, "Q4")}, b"\0" * 4),
        safetensors({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, b"\0" * 6),
        safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"\0" * 12),
        safetensors({"a": {"dtype": "F32"}}),
        safetensors({"a": 3}),
        safetensors({"__metadata__": []}),
        safetensors({"../a": entry([1], 0, 4)}, b"\0" * 4),
        safetensors({"a/../b": entry([1], 0, 4)}, b"\0" * 4),
        safetensors({"": entry([1], 0, 4)}, b"\0" * 4),
        safetensors({"a\n": entry([1], 0, 4)}, b"\0" * 4),
        safetensors({"\ud800": entry([1], 0, 4)}, b"\0" * 4),
        safetensors({"x" * 5000: entry([1], 0, 4)}, b"\0" * 4),
        safetensors(b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": {}}', b"\0" * 4),
        safetensors(b"[" * 100_000),
        safetensors(b'{"a":' + b"9" * 10_000 + b"}"),
        safetensors('{"a": 1}'.encode("utf-16")),
    ],
)
def test_hostile_safetensors(tmp_path: Path, data: bytes) -> None:
    assert not opens(tmp_path / "x.safetensors", data)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_file(
    tensors: list[bytes], keys: list[bytes], *, count: int | None = None, payload: bytes = b"", version: int = 3
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if count is None else count, len(keys))
    data = head + b"".join(keys) + b"".join(tensors)
    return data + b"\0" * (-len(data) % 32) + payload


def gguf_tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    sides = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)


ROW = gguf_tensor("a", [32], 2, 0)


def test_a_sound_gguf_is_accepted(tmp_path: Path) -> None:
    keys = [text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 5000) + text("t") * 5000]
    assert opens(tmp_path / "x.gguf", gguf_file([ROW], keys, payload=b"\0" * 18))
    file = read_gguf(tmp_path / "x.gguf")
    assert file.metadata["tokenizer.ggml.tokens"] == GgufArray(5000)
    assert (file.tensors["a"].dtype, file.tensors["a"].size) == ("Q4_0", 18)


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF",
        b"GGUG" + GGUF[4:],
        gguf_file([ROW], [], payload=b"\0" * 18, version=1),
        gguf_file([ROW], [], payload=b"\0" * 18, version=3 << 24),
        gguf_file([ROW], [], count=2**61, payload=b"\0" * 18),
        gguf_file([ROW], [], count=2, payload=b"\0" * 18),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**61),
        gguf_file([ROW], [struct.pack("<Q", 2**60)], payload=b"\0" * 18),
        gguf_file([ROW], [text("a") + struct.pack("<IIQ", 9, 4, 2**60)], payload=b"\0" * 18),
        gguf_file([ROW], [text("a") + struct.pack("<IIQ", 9, 8, 2**20)], payload=b"\0" * 18),
        gguf_file([ROW], [text("a") + struct.pack("<IIQ", 9, 9, 1)], payload=b"\0" * 18),
        gguf_file([ROW], [text("a") + struct.pack("<I", 77)], payload=b"\0" * 18),
        gguf_file([ROW], [text("a") + struct.pack("<IB", 0, 1)] * 2, payload=b"\0" * 18),
        gguf_file([ROW], [text("general.alignment") + struct.pack("<II", 4, 0)], payload=b"\0" * 18),
        gguf_file([ROW], [text("general.alignment") + struct.pack("<II", 4, 2**31)], payload=b"\0" * 18),
        gguf_file([ROW], [], payload=b"\0" * 17),
        gguf_file([gguf_tensor("a", [32], 2, 2**63)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("a", [32], 2, 7)], [], payload=b"\0" * 64),
        gguf_file([gguf_tensor("a", [31], 2, 0)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("a", [2**62, 2**62], 0, 0)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("a", [32], 4, 0)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("a", [32], 999, 0)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("a", [1] * 5, 0, 0)], [], payload=b"\0" * 18),
        gguf_file([gguf_tensor("../a", [32], 2, 0)], [], payload=b"\0" * 18),
        gguf_file([ROW, ROW], [], payload=b"\0" * 18),
        gguf_file([ROW, gguf_tensor("b", [32], 2, 0)], [], payload=b"\0" * 18),
    ],
)
def test_hostile_gguf(tmp_path: Path, data: bytes) -> None:
    assert not opens(tmp_path / "x.gguf", data)


def test_the_type_table_is_that_of_ggml() -> None:
    published = {int(kind): size for kind, size in gguf.constants.GGML_QUANT_SIZES.items()}
    ours = {number: (one.block, one.bytes) for number, one in TYPES.items()}
    assert {number: ours[number] for number in published} == published
    assert {number: TYPES[number].name for number in published} == {int(k): k.name for k in gguf.GGMLQuantizationType}


def test_the_file_types_are_those_of_llama_cpp() -> None:
    published = {int(one): one.name.removeprefix("MOSTLY_").removeprefix("ALL_") for one in gguf.LlamaFileType}
    published.pop(int(gguf.LlamaFileType.GUESSED))
    assert {number: FILE_TYPES[number][0] for number in published} == published


def test_gguf_tensors_hold_the_bytes_that_gguf_reads() -> None:
    path = ARTIFACTS / "tiny-Q8_0.gguf"
    ours = read_gguf(path).tensors
    for theirs in gguf.GGUFReader(path).tensors:
        assert ours[theirs.name].raw().tobytes() == theirs.data.tobytes()
        assert ours[theirs.name].shape == tuple(int(side) for side in reversed(theirs.shape))
