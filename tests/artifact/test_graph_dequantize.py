"""Numbers out of graphs: against onnxruntime, which multiplies with them, and cut-outs against whole tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize import Matrix, matrices
from mlflow_quantgov.artifact.dequantize.numbers import BNB_FP4, NF4
from mlflow_quantgov.artifact.dequantize.planes import Grid, Plane, Spread
from mlflow_quantgov.artifact.tensors import Tensor, read_safetensors
from mlflow_quantgov.artifact.tensors.onnx_tensor import ListedTensor

Array = np.ndarray[Any, Any]
MICROSOFT = "com.microsoft"


def packed(codes: Array, bits: int) -> Array:
    """Codes along the last axis in bytes, lowest first, each row in bytes of its own."""
    found = np.zeros((*codes.shape[:-1], -(-codes.shape[-1] * bits // 8)), dtype=np.uint8)
    for place in range(codes.shape[-1]):
        byte, shift = divmod(place * bits, 8)
        found[..., byte] |= (codes[..., place].astype(np.uint8) & (2**bits - 1)) << shift
    return found


def stored(codes: Array, kind: str, bits: int | None = None) -> Tensor:
    """A tensor that holds these bytes."""
    flat = packed(codes.reshape(1, -1), bits)[0] if bits else codes.reshape(-1).view(np.uint8)
    return ListedTensor("codes", kind, codes.shape, Path("nowhere"), 0, flat.size, flat.tobytes())


@given(data=st.data(), kind=st.sampled_from(["U4", "I4", "U2", "I2", "U8", "I8"]), padded=st.booleans())
def test_a_cut_out_of_codes_is_that_of_the_whole(data: st.DataObject, kind: str, padded: bool) -> None:
    bits, rows, columns = int(kind[1:]), data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    low = -(2 ** (bits - 1)) if kind[0] == "I" else 0
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = numbers.integers(low, low + 2**bits, (rows, columns)).astype(np.int8 if kind[0] == "I" else np.uint8)
    tensor = stored(codes, kind, bits if bits < 8 else None)
    if padded and bits < 8:
        lines = packed(codes, bits)
        tensor = ListedTensor("codes", kind, codes.shape, Path("nowhere"), 0, lines.size, lines.tobytes())
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    below, right = data.draw(st.integers(top + 1, rows)), data.draw(st.integers(left + 1, columns))
    found = Plane(tensor, rows, columns, padded=padded and bits < 8).read(slice(top, below), slice(left, right))
    assert np.array_equal(found, codes[top:below, left:right])


@given(data=st.data(), turned=st.booleans(), along=st.sampled_from(["tensor", "row", "column", "block", "down"]))
def test_rows_of_a_grid_are_those_of_its_formula(data: st.DataObject, turned: bool, along: str) -> None:
    rows, columns, block = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = numbers.integers(0, 256, (rows, columns)).astype(np.uint8)
    sides = {
        "tensor": (1, 1), "row": (rows, 1), "column": (1, columns), "block": (rows, -(-columns // block)),
        "down": (-(-rows // block), columns),
    }[along]  # fmt: skip
    scale, zero = numbers.uniform(0.5, 2, sides).astype(np.float32), numbers.integers(0, 256, sides).astype(np.uint8)
    share = (block if along == "down" else 1, block if along == "block" else 1)
    down, across = np.arange(rows) // share[0], np.arange(columns) // share[1]
    spread = [one[down if sides[0] > 1 else [0]][:, across if sides[1] > 1 else [0]] for one in (scale, zero)]
    expected = (codes.astype(np.float32) - spread[1]) * spread[0]
    grid = Grid(
        Plane(stored(codes, "U8"), rows, columns), Spread(Plane(stored(scale, "F32"), *sides), *share), 0, 255,
        Spread(Plane(stored(zero, "U8"), *sides), *share), turned,
    )  # fmt: skip
    expected = expected.T if turned else expected
    start = data.draw(st.integers(0, len(expected) - 1))
    stop = data.draw(st.integers(start + 1, len(expected)))
    found = grid.read(start, stop)
    assert np.allclose(found.values, expected[start:stop], atol=1e-3)
    assert found.below is not None
    wide = np.broadcast_to(spread[0], codes.shape)
    halves = (wide.T if turned else wide)[start:stop] / 2
    lowest = (codes.T if turned else codes)[start:stop] == 0
    assert np.allclose(found.below, np.where(lowest, np.inf, halves))


def run(tmp_path: Path, nodes: list[Any], tensors: dict[str, Any], given: Array) -> tuple[Array, dict[str, Matrix]]:
    """What onnxruntime makes of an input, and the matrices that are read from the same file."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made = [
        one if isinstance(one, onnx.TensorProto) else onnx.numpy_helper.from_array(one, name)
        for name, one in tensors.items()
    ]
    kind = onnx.TensorProto.INT64 if given.dtype == np.int64 else onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("x", kind, None)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)], made,
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid(MICROSOFT, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": given})[0], matrices(tmp_path / "model.onnx")


def node(op: str, *inputs: str, domain: str = "", out: str = "y", **attributes: Any) -> Any:
    onnx = pytest.importorskip("onnx")
    return onnx.helper.make_node(op, list(inputs), [out], f"/m/{op}", domain=domain, **attributes)


def only(found: dict[str, Matrix]) -> Array:
    """The numbers of the one matrix, in two blocks."""
    (one,) = (matrix for matrix in found.values() if matrix.bits is not None)
    half = one.rows // 2
    return np.concatenate([one.block(0, half).values, one.block(half, one.rows).values])


@pytest.mark.parametrize(
    ("bits", "zeros"),
    [(bits, zeros) for bits in (2, 4, 8) for zeros in ("none", "packed")] + [(2, "float"), (4, "float")],
)
@pytest.mark.parametrize("columns", [32, 40])
def test_blocks_are_those_that_onnxruntime_multiplies_with(tmp_path: Path, bits: int, zeros: str, columns: int) -> None:
    numbers = np.random.default_rng(bits)
    rows, block = 6, 16
    blocks = -(-columns // block)
    codes = packed(numbers.integers(0, 2**bits, (rows, blocks, block)), bits)
    tensors = {"w": codes, "s": numbers.uniform(0.5, 1, (rows, blocks)).astype(np.float32)}
    if zeros == "packed":
        tensors["z"] = packed(numbers.integers(0, 2**bits, (rows, blocks)), bits)
    elif zeros == "float":
        tensors["z"] = numbers.uniform(0, 2**bits, (rows, blocks)).astype(np.float32)
    made = node("MatMulNBits", "x", *tensors, domain=MICROSOFT, K=columns, N=rows, bits=bits, block_size=block)
    got, found = run(tmp_path, [made], tensors, np.eye(columns, dtype=np.float32))
    assert np.allclose(only(found), got.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_of_bitsandbytes_are_those_that_onnxruntime_multiplies_with(tmp_path: Path, kind: str) -> None:
    numbers = np.random.default_rng(0)
    tensors = {"w": numbers.integers(0, 256, 6 * 32 // 2).astype(np.uint8),
               "s": numbers.uniform(0.5, 1, 6 * 32 // 16).astype(np.float32)}  # fmt: skip
    made = node("MatMulBnb4", "x", "w", "s", domain=MICROSOFT, K=32, N=6, block_size=16, quant_type=int(kind == "nf4"))
    got, found = run(tmp_path, [made], tensors, np.eye(32, dtype=np.float32))
    assert np.allclose(only(found), got.T, atol=1e-5)


@pytest.mark.parametrize("kind", ["UINT4", "INT4", "UINT8"])
@pytest.mark.parametrize("zeros", [False, True])
def test_a_table_in_blocks_is_the_one_that_onnxruntime_picks_from(tmp_path: Path, kind: str, zeros: bool) -> None:
    onnx = pytest.importorskip("onnx")
    numbers, rows, columns, block = np.random.default_rng(1), 5, 32, 16
    low = -8 if kind == "INT4" else 0
    codes, middles = numbers.integers(low, low + 16, (rows, columns)), numbers.integers(low, low + 16, (rows, 2))

    def tensor(name: str, one: Array) -> Any:
        if kind == "UINT8":
            return packed(one, 4)
        return onnx.helper.make_tensor(name, getattr(onnx.TensorProto, kind), one.shape, one.reshape(-1).tolist())

    tensors = {"w": tensor("w", codes), "s": numbers.uniform(0.5, 1, (rows, 2)).astype(np.float32)}
    if zeros:
        tensors["z"] = tensor("z", middles)
    more = {"bits": 4} if kind == "UINT8" else {}
    made = node(
        "GatherBlockQuantized", "w", "x", "s", *(["z"] if zeros else []), domain=MICROSOFT, block_size=block,
        gather_axis=0, quantize_axis=1, **more,
    )  # fmt: skip
    got, found = run(tmp_path, [made], tensors, np.arange(rows, dtype=np.int64))
    assert np.allclose(only(found), got)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, "block 0", "block 1"])
@pytest.mark.parametrize("stored_as", ["in", "out"])
def test_dequantized_matrices_are_those_of_onnxruntime(tmp_path: Path, axis: Any, stored_as: str) -> None:
    numbers, rows, columns = np.random.default_rng(2), 6, 8
    sides: Any = () if axis is None else ((rows, columns)[axis],) if isinstance(axis, int) else \
        (-(-rows // 4), columns) if axis == "block 0" else (rows, columns // 4)  # fmt: skip
    tensors = {
        "w": numbers.integers(-128, 128, (rows, columns)).astype(np.int8),
        "s": np.asarray(numbers.uniform(0.5, 1, sides), dtype=np.float32),
        "z": np.asarray(numbers.integers(-128, 128, sides), dtype=np.int8),
    }
    more = {} if axis is None else {"axis": axis} if isinstance(axis, int) else \
        {"axis": int(axis[-1]), "block_size": 4}  # fmt: skip
    nodes = [node("DequantizeLinear", "w", "s", "z", out="d", **more)]
    if stored_as == "out":
        nodes.append(node("Transpose", "d", out="t", perm=[1, 0]))
    nodes.append(node("MatMul", "x", "t" if stored_as == "out" else "d"))
    wide = columns if stored_as == "out" else rows
    got, found = run(tmp_path, nodes, tensors, np.eye(wide, dtype=np.float32))
    assert np.allclose(only(found), got.T, rtol=1e-4, atol=1e-3)


def test_tables_of_four_bits_are_those_of_bitsandbytes(artifacts: Path) -> None:
    for name, table in (("bnb-nf4-double", NF4), ("bnb-fp4", BNB_FP4)):
        maps = [
            one for key, one in read_safetensors(artifacts / name / "model.safetensors") if key.endswith(".quant_map")
        ]
        assert np.allclose(np.asarray(maps[0], dtype=np.float32), table, atol=1e-7)


def test_powers_of_two_scale_codes_and_are_none_themselves(tmp_path: Path) -> None:
    codes, powers = np.arange(8, dtype=np.uint8).reshape(2, 4), np.array([126, 129], dtype=np.uint8)
    (tmp_path / "openvino_model.bin").write_bytes(packed(codes, 4).tobytes() + powers.tobytes() + bytes(8))
    constants = [("f4e2m1", "2, 1, 4", 0, 4), ("f8e8m0", "2, 1, 1", 4, 2), ("i64", "1", 6, 8)]
    layers = "".join(
        f'<layer id="{at}" name="w{at}" type="Const"><data element_type="{kind}" shape="{shape}" offset="{offset}" '
        f'size="{size}"/></layer>'
        for at, (kind, shape, offset, size) in enumerate(constants)
    )
    names = ["Convert", "Convert", "Multiply", "Reshape", "Parameter"]
    layers += "".join(f'<layer id="{at}" name="n{at}" type="{op}"/>' for at, op in enumerate(names, 3))
    layers += '<layer id="8" name="__module.m.fc/aten::linear/MatMul" type="MatMul"><data transpose_b="true"/></layer>'
    edges = [(0, 3, 0), (1, 4, 0), (3, 5, 0), (4, 5, 1), (5, 6, 0), (2, 6, 1), (7, 8, 0), (6, 8, 1)]
    lines = "".join(f'<edge from-layer="{a}" to-layer="{b}" to-port="{port}"/>' for a, b, port in edges)
    (tmp_path / "openvino_model.xml").write_text(f"<net><layers>{layers}</layers><edges>{lines}</edges></net>")
    found = matrices(tmp_path)
    assert list(found) == ["m.fc.weight"]
    expected = np.array([[0, 0.5, 1, 1.5], [2, 3, 4, 6]], dtype=np.float32) * [[0.5], [4]]
    assert np.array_equal(only(found), expected)
