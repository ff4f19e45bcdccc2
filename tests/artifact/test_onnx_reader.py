"""The reader of ONNX graphs: whatever the bytes, an answer or one ArtifactError, within bounds."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import accepts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import read_onnx
from mlflow_quantgov.artifact.tensors.onnx_tensor import varints
from mlflow_quantgov.errors import ArtifactError

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
FILES = [
    (ARTIFACTS / name).read_bytes()
    for name in (
        "onnx-int4-nbits/model.onnx", "onnx-int8-qdq/model.onnx", "onnx-int8-dynamic/model_quantized.onnx",
        "onnx-genai-int4/model.onnx", "onnx-cnn-int8/model.onnx",
    )
]  # fmt: skip
DATA = (ARTIFACTS / "onnx-genai-int4" / "model.onnx.data").read_bytes()
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WEIGHT = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def reads(folder: Path, data: bytes) -> bool:
    """Whether a file is accepted; anything but an ArtifactError fails the test, and so does much memory."""
    path = folder / "model.onnx"
    path.write_bytes(data)
    return accepts(lambda: (read_onnx(path), inspect(path)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the data that one of the files keeps beside it."""
    (tmp_path / "model.onnx.data").write_bytes(DATA)
    return tmp_path


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes_never_crash(folder: Path, data: bytes) -> None:
    reads(folder, data)


@FUZZ
@given(st.data())
def test_a_truncated_file_is_refused(folder: Path, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(FILES))
    # What follows the graph (versions, notes) may be missing: then the model is whole.
    assert not reads(folder, whole[: data.draw(st.integers(0, len(whole) * 9 // 10))])


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_mutated_files_never_crash(folder: Path, data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    reads(folder, bytes(changed))


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_files_with_parts_cut_out_or_doubled_never_crash(folder: Path, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(FILES))
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 600)))
    times = data.draw(st.sampled_from([0, 2, 5]))
    reads(folder, whole[:begin] + whole[begin:end] * times + whole[end:])


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30))
def test_varints_are_what_was_written(numbers: list[int]) -> None:
    data = bytearray()
    for number in numbers:
        while number > 127:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
    assert varints(bytes(data)).tolist() == numbers


def test_a_length_that_no_file_has(folder: Path, onnx: Any) -> None:
    assert not reads(folder, b"\x3a" + onnx.varint(2**60) + b"x")
    assert not reads(folder, b"\x3a" + b"\xff" * 11)


@pytest.mark.parametrize("key", [b"\x3b", b"\x3c", b"\x3e", b"\x3f", b"\x00\x01"])
def test_wire_types_that_do_not_exist(folder: Path, key: bytes) -> None:
    assert not reads(folder, key + b"\x01\x01")


@pytest.mark.parametrize("number", [2, 3, 7])
def test_a_part_with_another_wire_type(folder: Path, onnx: Any, number: int) -> None:
    assert not reads(folder, onnx.field(number, 5) + onnx.field(1, 10))


def test_graphs_nested_like_a_bomb(folder: Path, onnx: Any) -> None:
    graph = onnx.graph([])
    for _ in range(40):
        graph = onnx.graph([onnx.node("If", ["x"], ["y"], then_branch=(6, graph))])
    (folder / "model.onnx").write_bytes(onnx.field(7, graph))
    with pytest.raises(ArtifactError, match="nested"):
        read_onnx(folder / "model.onnx")


def test_a_second_graph_which_a_loader_would_join_to_the_first(folder: Path, onnx: Any) -> None:
    assert not reads(folder, onnx.model([]) + onnx.field(7, onnx.graph([])))


@pytest.mark.parametrize("number", [1, 3])
def test_an_attribute_that_says_two_things(folder: Path, onnx: Any, number: int) -> None:
    twice = onnx.attribute("bits", 4) + onnx.field(number, "K" if number == 1 else 8)
    node = onnx.node("MatMulNBits", ["x"], ["y"]) + onnx.field(5, twice)
    assert not reads(folder, onnx.model([node]))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 99}, {"kind": 0}, {"shape": (8, 5)}, {"shape": (2**50, 1)}, {"shape": (-8, -4)}, {"shape": (2**47, 2**47)},
        {"shape": (1,) * 100},
    ],
)  # fmt: skip
def test_a_tensor_whose_parts_disagree(folder: Path, onnx: Any, change: dict[str, Any]) -> None:
    node = onnx.node("MatMul", ["x", "w"], ["y"])
    assert reads(folder, onnx.model([node], [onnx.tensor("w", WEIGHT)]))
    assert not reads(folder, onnx.model([node], [onnx.tensor("w", WEIGHT, **change)]))


def test_tensors_that_are_stored_twice_or_not_at_all(folder: Path, onnx: Any) -> None:
    whole = onnx.tensor("w", WEIGHT)
    for tensors in (
        [whole, whole],
        [whole + onnx.field(9, WEIGHT.tobytes())],
        [whole + onnx.field(13, onnx.field(1, "location") + onnx.field(2, "model.onnx.data"))],
        [onnx.tensor("w", shape=(8, 4))],
        [onnx.tensor("", WEIGHT)],
        [onnx.tensor("w\n", WEIGHT)],
    ):
        assert not reads(folder, onnx.model([], tensors))


@pytest.mark.parametrize(
    "beside",
    [
        {"location": "../secret"}, {"location": "/etc/hostname"}, {"location": "a/../../secret"}, {"location": "C:\\x"},
        {"location": ""}, {"location": "."}, {"location": "model.onnx"}, {"location": "absent"}, {"location": "a\0b"},
        {"location": "w", "offset": "1"}, {"location": "w", "offset": "-1"}, {"location": "w", "length": "64"},
        {"location": "w", "offset": "99999999999999999999"}, {"location": "w", "offset": "\u0663"}, {"location": "leads-out"},
        {"offset": "0"},
    ],
)  # fmt: skip
def test_data_that_does_not_lie_in_the_folder(tmp_path: Path, onnx: Any, beside: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    (folder / "w").write_bytes(WEIGHT.tobytes())
    (folder / "leads-out").symlink_to(tmp_path / "secret")
    node = onnx.node("MatMul", ["x", "w"], ["y"])
    assert reads(folder, onnx.model([node], [onnx.tensor("w", shape=WEIGHT.shape, location="w")]))
    assert not reads(folder, onnx.model([node], [onnx.tensor("w", shape=WEIGHT.shape, **beside)]))


def test_data_that_overlaps_and_data_that_is_shared(folder: Path, onnx: Any) -> None:
    def two(offset: str, kind: int = 1) -> bytes:
        first = onnx.tensor("a", shape=(8, 4), location="w", offset="0")
        return onnx.model([], [first, onnx.tensor("b", shape=(8, 4), kind=kind, location="w", offset=offset)])

    (folder / "w").write_bytes(bytes(256))
    assert reads(folder, two("0")) and reads(folder, two("128"))
    assert not reads(folder, two("64"))
    assert not reads(folder, two("0", kind=6))


def test_weights_are_never_read(folder: Path, onnx: Any) -> None:
    path = folder / "model.onnx"
    (folder / "big").touch()
    os.truncate(folder / "big", 2**40)
    beside = onnx.tensor("w", shape=(2**19, 2**19), location="big")
    head = onnx.field(1, 2**19) + onnx.field(1, 2**17) + onnx.field(2, 1) + onnx.field(8, "v")
    inside = head + b"\x4a" + onnx.varint(2**38)
    graph = onnx.field(5, beside) + b"\x2a" + onnx.varint(len(inside) + 2**38) + inside
    path.write_bytes(b"\x3a" + onnx.varint(len(graph) + 2**38) + graph)
    os.truncate(path, path.stat().st_size + 2**38)
    tracemalloc.start()
    found = read_onnx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {name: one.size for name, one in found.tensors.items()} == {"w": 2**40, "v": 2**38}
    assert peak < 1024 * 1024


def test_a_header_of_too_many_parts(folder: Path, onnx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_quantgov.artifact.tensors.protobuf.MAX_FIELDS", 1000)
    (folder / "model.onnx").write_bytes(onnx.model([onnx.node("Relu", ["x"], ["x"])] * 400))
    with pytest.raises(ArtifactError, match="more than 1,000 fields"):
        read_onnx(folder / "model.onnx")


def test_tensors_of_branches_have_names_of_their_own(folder: Path, onnx: Any) -> None:
    def branch(factor: int) -> tuple[int, bytes]:
        node = onnx.node("MatMul", ["outer", "w"], ["y"])
        return 6, onnx.graph([node], [onnx.tensor("w", WEIGHT * factor)], [])

    outer = onnx.tensor("outer", WEIGHT.T.copy())
    fork = onnx.node("If", ["x"], ["y"], then_branch=branch(1), else_branch=branch(2))
    (folder / "model.onnx").write_bytes(onnx.model([fork], [outer]))
    found = read_onnx(folder / "model.onnx")
    assert len(found.tensors) == 3
    products = [node for node in found.graph.nodes if node.op == "MatMul"]
    assert len(products) == 2 and products[0].inputs[1] != products[1].inputs[1]
    assert {node.inputs[0] for node in products} == {"outer"}


def test_numbers_that_are_written_one_by_one(folder: Path, onnx: Any) -> None:
    def listed(numbers: list[int], shape: tuple[int, ...], kind: int = 3) -> bytes:
        head = onnx.tensor("z", shape=shape, kind=kind)
        return onnx.model([], [head + onnx.field(5, b"".join(map(onnx.varint, numbers)))])

    assert reads(folder, listed([-1, 5, -128], (3,)))
    assert read_onnx(folder / "model.onnx").tensors["z"].stored().tolist() == [-1, 5, -128]
    assert not reads(folder, listed([-1, 5], (3,)))
    assert not reads(folder, listed([1, 2, 3], (3,), kind=1))


def test_numbers_that_are_written_shorter_than_they_are_overlap_nothing(folder: Path, onnx: Any) -> None:
    head = onnx.tensor("z", shape=(64,), kind=5)
    short = head + onnx.field(5, bytes(64))
    (folder / "model.onnx").write_bytes(onnx.model([], [short, onnx.tensor("s", np.ones(2, np.float32))]))
    found = read_onnx(folder / "model.onnx").tensors
    assert (found["z"].size, found["s"].stored().tolist()) == (128, [1, 1])


def test_a_pointer_to_a_large_file_is_no_model(tmp_path: Path) -> None:
    shutil.copy(ARTIFACTS / "onnx-genai-int4" / "genai_config.json", tmp_path / "genai_config.json")
    assert not reads(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")


def test_branches_of_branches_see_what_is_around_them(folder: Path, onnx: Any) -> None:
    inner = onnx.graph([onnx.node("MatMul", ["own", "outer"], ["y"])], [], ["own"])
    middle = onnx.graph([onnx.node("If", ["c"], ["y"], then_branch=(6, inner))], [onnx.tensor("c", WEIGHT)], [])
    fork = onnx.node("If", ["x"], ["y"], else_branch=(6, middle))
    (folder / "model.onnx").write_bytes(onnx.model([fork], [onnx.tensor("outer", WEIGHT)]))
    product = next(node for node in read_onnx(folder / "model.onnx").graph.nodes if node.op == "MatMul")
    assert product.inputs[1] == "outer" and product.inputs[0] not in {"own", "outer"}
