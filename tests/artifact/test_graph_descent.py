"""Graphs and their parents: what real tools wrote, what lost its names, and what is none of the parent's."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import accepts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.dequantize import Block, Matrix
from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.artifact.derivation.graph_tensors import align

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_parents as others
import descent_quantizers as make

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
# Graph -> parent, and the share of its norm by which the parent is changed so that it must show.
FIXTURES = {
    "onnx-int4-nbits": ("parent-bf16", 0.01), "onnx-int4-qdq": ("parent-bf16", 0.01),
    "onnx-genai-int4": ("parent-bf16", 0.01), "onnx-int8-dynamic": ("parent-bf16", 0.003),
    "onnx-int8-qdq": ("parent-bf16", 0.003), "onnx-int8-qoperator": ("parent-bf16", 0.003),
    "openvino-int4-asym": ("parent-bf16", 0.01), "openvino-nf4": ("parent-bf16", 0.01),
    "openvino-int8-static": ("parent-bf16", 0.003), "onnx-genai-tied": ("parent-tied", 0.01),
    "openvino-int4-tied": ("parent-tied", 0.02),
}  # fmt: skip
FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def problems(found: Descent) -> dict[str, str]:
    return {one.name: one.problem for one in found.layers if one.problem}


def changed_parent(folder: Path, name: str, change: Any) -> Path:
    weights, config = make.load(ARTIFACTS / name)
    # float32: rounding to bfloat16 would be a change of its own.
    path: Path = make.save(folder, change(weights), config)
    return path


@pytest.mark.parametrize("name", [*FIXTURES, "onnx-f16"])
def test_graphs_of_real_tools_come_from_their_parent(name: str) -> None:
    found = compare(ARTIFACTS / name, ARTIFACTS / FIXTURES.get(name, ("parent-bf16", 0))[0])
    assert (found.verdict, problems(found)) == ("proved", {})
    assert all(one.trace in {"rounded", "unchanged"} for one in found.layers)
    assert not any("onnx::" in one.name or "Constant" in one.name for one in found.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXTURES)
def test_graphs_of_real_tools_do_not_come_from_another_parent(tmp_path: Path, name: str) -> None:
    parent, amount = FIXTURES[name]
    other = compare(ARTIFACTS / name, changed_parent(tmp_path / "other", parent, others.another_seed))
    assert other.verdict == "refuted"
    near = changed_parent(tmp_path / "near", parent, lambda weights: others.changed(weights, amount))
    true = compare(ARTIFACTS / name, ARTIFACTS / parent)
    assert true.resolution is not None and true.resolution < amount
    assert compare(ARTIFACTS / name, near).verdict != "proved"


@pytest.mark.parametrize("name", ["onnx-int8-dynamic", "openvino-int8-static"])
def test_a_parent_that_was_quantized_before_shows(tmp_path: Path, name: str) -> None:
    other = changed_parent(tmp_path / "other", "parent-bf16", lambda weights: others.once_quantized(weights, 8, -1))
    assert compare(ARTIFACTS / name, other).verdict != "proved"


@pytest.mark.parametrize("name", ["onnx-genai-tied", "openvino-int4-tied"])
@pytest.mark.parametrize("part", ["norm.weight", "self_attn.k_proj.bias", "post_attention_layernorm.weight"])
def test_vectors_must_be_the_parents(tmp_path: Path, name: str, part: str) -> None:
    def change(weights: dict[str, Any]) -> dict[str, Any]:
        return {key: one * np.float32(1.01) if key.endswith(part) else one for key, one in weights.items()}

    found = compare(ARTIFACTS / name, changed_parent(tmp_path / "other", "parent-tied", change))
    assert found.verdict == "refuted"
    assert any(key.endswith(part) for key in problems(found))


def test_norms_that_a_graph_leaves_out_must_be_ones(tmp_path: Path) -> None:
    def change(weights: dict[str, Any]) -> dict[str, Any]:
        return {key: one * np.float32(1.01) if key == "model.norm.weight" else one for key, one in weights.items()}

    found = compare(ARTIFACTS / "openvino-nf4", changed_parent(tmp_path / "other", "parent-bf16", change))
    assert found.verdict == "refuted"
    assert "model.norm.weight of the parent is missing" in found.reason


# Graphs that are written here: names can be left out, and matrices joined.
HIDDEN, INNER = 64, 96
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 4,
          "num_key_value_heads": 2, "hidden_size": HIDDEN}  # fmt: skip


def some_weights() -> dict[str, Any]:
    random = np.random.default_rng(7)
    shapes = {f"model.layers.{at}.{part}_proj.weight": sides for at in (0, 1) for part, sides in (
        ("self_attn.q", (64, 64)), ("self_attn.k", (32, 64)), ("self_attn.v", (32, 64)), ("self_attn.o", (64, 64)),
        ("mlp.gate", (INNER, 64)), ("mlp.up", (INNER, 64)), ("mlp.down", (64, INNER)))}  # fmt: skip
    norms = [f"model.layers.{at}.{one}_layernorm.weight" for at in (0, 1) for one in ("input", "post_attention")]
    found = {"model.embed_tokens.weight": (80, HIDDEN), **shapes, "lm_head.weight": (80, HIDDEN)}
    weights = {name: (random.standard_normal(sides) * 0.05).astype(np.float32) for name, sides in found.items()}
    return weights | {
        name: (1 + 0.2 * random.standard_normal(HIDDEN)).astype(np.float32) for name in [*norms, "model.norm.weight"]
    }


WEIGHTS = some_weights()


class Graph:
    """Writes a graph, matrix by matrix."""

    def __init__(self, onnx: Any, *, named: bool) -> None:
        self.onnx, self.named = onnx, named
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []

    def add(self, name: str, one: Any) -> None:
        module = name.removesuffix(".weight")
        scope = f"/{module.replace('.', '/')}/op" if self.named else f"node_{len(self.nodes)}"
        stored = f"val_{len(self.tensors)}"
        if one.ndim == 1:
            self.node("Mul", stored, one, scope)
        elif name == "model.embed_tokens.weight":
            self.tensors.append(self.onnx.tensor(stored, one))
            self.nodes.append(self.onnx.node("Gather", [stored, "x"], [f"out_{stored}"], scope))
        else:
            self.blocks(stored, one, scope)

    def node(self, op: str, stored: str, one: Any, scope: str) -> None:
        self.tensors.append(self.onnx.tensor(stored, one))
        self.nodes.append(self.onnx.node(op, ["x", stored], [f"out_{stored}"], scope))

    def blocks(self, stored: str, one: Any, scope: str, block: int = 32) -> None:
        rows, columns = one.shape
        parts = one.reshape(rows, columns // block, block)
        scales = (np.abs(parts).max(axis=2) / 7).astype(np.float32)
        codes = (np.clip(np.rint(parts / scales[:, :, None]), -8, 7) + 8).astype(np.uint8)
        packed = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
        self.tensors += [self.onnx.tensor(stored, packed), self.onnx.tensor(f"{stored}_s", scales)]
        sizes = {"K": columns, "N": rows, "bits": 4, "block_size": block}
        self.nodes.append(
            self.onnx.node(
                "MatMulNBits", ["x", stored, f"{stored}_s"], [f"out_{stored}"], scope, "com.microsoft", **sizes
            )
        )

    def save(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(self.onnx.model(self.nodes, self.tensors))
        return folder


def joined(weights: dict[str, Any], fused: str, parts: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, one in weights.items():
        if f".{parts[0]}." in name:
            pieces = [weights[name.replace(parts[0], part)] for part in parts]
            found[name.replace(parts[0], fused)] = np.concatenate(pieces)
        elif not any(f".{part}." in name for part in parts):
            found[name] = one
    return found


def written(folder: Path, onnx: Any, weights: dict[str, Any], *, named: bool, more: Any = None) -> Path:
    graph = Graph(onnx, named=named)
    for name, one in weights.items():
        graph.add(name, one)
    if more is not None:
        more(graph)
    return graph.save(folder)


QKV, GATED = ("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("fused", [(), (QKV,), (QKV, GATED)])
def test_graphs_without_names_and_with_joined_matrices(
    tmp_path: Path, onnx: Any, named: bool, fused: tuple[Any, ...]
) -> None:
    weights = WEIGHTS
    for one in fused:
        weights = joined(weights, *one)
    child = written(tmp_path / "child", onnx, weights, named=named)
    found = compare(child, make.save(tmp_path / "parent", WEIGHTS, CONFIG))
    assert (found.verdict, problems(found)) == ("proved", {})
    assert {one.name for one in found.layers} == set(WEIGHTS)
    other = compare(child, make.save(tmp_path / "other", others.another_seed(WEIGHTS), CONFIG))
    assert other.verdict == "refuted"
    assert named or "like none of the parent's" in other.reason
    near = compare(child, make.save(tmp_path / "near", others.changed(WEIGHTS, 0.01), CONFIG))
    assert near.verdict == "unproved"


def test_a_graph_that_holds_apart_what_its_parent_joined(tmp_path: Path, onnx: Any) -> None:
    parent = make.save(tmp_path / "parent", joined(joined(WEIGHTS, *QKV), *GATED), CONFIG)
    found = compare(written(tmp_path / "child", onnx, WEIGHTS, named=True), parent)
    assert (found.verdict, problems(found)) == ("proved", {})


def test_a_weight_that_is_called_a_table_of_positions_is_seen(tmp_path: Path, onnx: Any) -> None:
    parent = make.save(tmp_path / "parent", WEIGHTS, CONFIG)

    def hidden(graph: Graph) -> None:
        values = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
        graph.node("Mul", "model.rotary_emb.cos_cached", values, "/model/rotary_emb/Mul")

    found = compare(written(tmp_path / "child", onnx, WEIGHTS, named=False, more=hidden), parent)
    assert found.verdict == "unproved" and any("rotary_emb" in name for name in problems(found))


def test_a_matrix_that_the_parent_does_not_have_is_refuted(tmp_path: Path, onnx: Any) -> None:
    parent = make.save(tmp_path / "parent", WEIGHTS, CONFIG)

    def adapter(graph: Graph) -> None:
        graph.node("MatMul", "lora_A", np.random.default_rng(3).standard_normal((64, 4)).astype(np.float32), "node_a")

    found = compare(written(tmp_path / "child", onnx, WEIGHTS, named=False, more=adapter), parent)
    assert (found.verdict, "lora_A" in found.reason) == ("refuted", True)

    def hidden(graph: Graph) -> None:
        graph.node("MatMul", "rotary_emb.b", np.random.default_rng(3).standard_normal((64, 4)).astype(np.float32), "b")

    found = compare(written(tmp_path / "hidden", onnx, WEIGHTS, named=False, more=hidden), parent)
    assert found.verdict == "unproved"
    assert "rotary_emb.b" in problems(found)


def test_a_constant_that_the_parent_does_not_have_leaves_it_unproved(tmp_path: Path, onnx: Any) -> None:
    parent = make.save(tmp_path / "parent", WEIGHTS, CONFIG)
    found = compare(
        written(
            tmp_path / "child", onnx, WEIGHTS, named=True,
            more=lambda graph: graph.node("Mul", "steering", np.full(HIDDEN, 0.5, np.float32), "node_a"),
        ),
        parent,
    )  # fmt: skip
    assert found.verdict == "unproved"
    assert set(problems(found)) == {"steering"}


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_])
def test_whole_numbers_that_become_floats_leave_it_unproved(tmp_path: Path, onnx: Any, dtype: Any) -> None:
    parent = make.save(tmp_path / "parent", WEIGHTS, CONFIG)

    def steer(graph: Any) -> None:
        graph.tensors.append(onnx.tensor("steering", np.full(HIDDEN, 1, dtype)))
        graph.nodes.append(onnx.node("Cast", ["steering"], ["cast"], to=1))
        graph.nodes.append(onnx.node("Add", ["x", "cast"], ["y"]))

    found = compare(written(tmp_path / "child", onnx, WEIGHTS, named=True, more=steer), parent)
    assert found.verdict == "unproved"
    assert set(problems(found)) == {"steering"}


def test_a_matrix_under_anothers_name_is_refuted(tmp_path: Path, onnx: Any) -> None:
    one, other = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
    child = written(tmp_path / "child", onnx, WEIGHTS | {one: WEIGHTS[other], other: WEIGHTS[one]}, named=True)
    found = compare(child, make.save(tmp_path / "parent", WEIGHTS, CONFIG))
    assert found.verdict == "refuted"
    assert set(problems(found)) == {one, other}


def test_both_copies_of_a_matrix_are_compared(tmp_path: Path, onnx: Any) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    parent = make.save(tmp_path / "parent", WEIGHTS, CONFIG)
    same = written(tmp_path / "same", onnx, WEIGHTS, named=True, more=lambda graph: graph.add(name, WEIGHTS[name]))
    found = compare(same, parent)
    assert (found.verdict, len(found.layers)) == ("proved", len(WEIGHTS) + 1)
    wrong = others.changed(WEIGHTS, 0.05)[name]
    child = written(tmp_path / "wrong", onnx, WEIGHTS, named=True, more=lambda graph: graph.add(name, wrong))
    assert compare(child, parent).verdict == "unproved"


@pytest.mark.parametrize("changed", [False, True])
def test_matrices_of_both_branches_are_compared(tmp_path: Path, onnx: Any, changed: bool) -> None:
    # As in a merged decoder: with and without a cache, and each branch with tensors of its own.
    branches = []
    for weights in (WEIGHTS, others.changed(WEIGHTS, 0.05) if changed else WEIGHTS):
        graph = Graph(onnx, named=True)
        for name, one in weights.items():
            graph.add(name, one)
        branches.append((6, onnx.graph(graph.nodes, graph.tensors, [])))
    folder = tmp_path / "child"
    folder.mkdir()
    fork = onnx.node("If", ["x"], ["y"], then_branch=branches[0], else_branch=branches[1])
    (folder / "model.onnx").write_bytes(onnx.model([fork]))
    found = compare(folder, make.save(tmp_path / "parent", WEIGHTS, CONFIG))
    assert len(found.layers) == 2 * len(WEIGHTS)
    assert found.verdict == ("unproved" if changed else "proved")


def test_a_missing_matrix_is_refuted(tmp_path: Path, onnx: Any) -> None:
    less = {name: one for name, one in WEIGHTS.items() if name != "model.layers.1.mlp.down_proj.weight"}
    found = compare(
        written(tmp_path / "child", onnx, less, named=False), make.save(tmp_path / "parent", WEIGHTS, CONFIG)
    )
    assert (found.verdict, "is missing" in found.reason) == ("refuted", True)


def test_what_cannot_be_read_may_be_what_is_missing(tmp_path: Path, onnx: Any) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    less = {key: one for key, one in WEIGHTS.items() if key != name}

    def odd(graph: Graph) -> None:
        rows, columns = WEIGHTS[name].shape
        graph.tensors += [
            onnx.tensor("odd", np.zeros((rows, 2, 12), np.uint8)),
            onnx.tensor("odd_s", np.ones((rows, 2), np.float32)),
        ]
        sizes = {"K": columns, "N": rows, "bits": 3, "block_size": 32}
        graph.nodes.append(onnx.node("MatMulNBits", ["x", "odd", "odd_s"], ["y"], "n", "com.microsoft", **sizes))

    child = written(tmp_path / "child", onnx, less, named=False, more=odd)
    found = compare(child, make.save(tmp_path / "parent", WEIGHTS, CONFIG))
    assert (found.verdict, "the order of 3-bit codes" in found.reason) == ("unproved", True)


def constant(name: str, one: Any, claim: str | None) -> Matrix:
    def read(start: int, stop: int) -> Block:
        return Block(one.reshape(-1, one.shape[-1])[start:stop])

    return Matrix(name, one.shape, "F32", (name,), read, claim=claim)


@pytest.mark.parametrize("stem", ["model.embed_tokens", "transformer.wte", "transformer.word_embeddings"])
def test_an_output_matrix_that_is_the_embedding_needs_no_name(stem: str) -> None:
    table = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    child = {name: constant(name, table, claim) for name, claim in (("a", f"{stem}.weight"), ("b", ""))}
    found = align(child, {f"{stem}.weight": constant(f"{stem}.weight", table, None)})
    assert set(found.child) == {f"{stem}.weight", "lm_head.weight"}
    assert not found.foreign and not found.strange


def test_norms_of_gemma_in_a_graph_are_one_larger() -> None:
    stem, random = "model.layers.0.", np.random.default_rng(0)
    norms = {f"{stem}{one}_layernorm.weight": (0.3 * random.standard_normal(8)).astype(np.float32)
             for one in ("input", "pre_feedforward")}  # fmt: skip
    parent = {name: constant(name, one, None) for name, one in norms.items()}
    child = {name: constant(name, one + np.float32(1), name) for name, one in norms.items()}
    found = align(child, parent).child
    assert {one.kind for one in found.values()} == {"F32 plus one"}
    assert all(np.allclose(found[name].read(0, 1).values, one, atol=1e-6) for name, one in norms.items())


@pytest.mark.slow
@FUZZ
@given(data=st.data(), name=st.sampled_from(["onnx-int4-nbits", "onnx-int8-qdq", "openvino-int4-asym"]))
def test_a_mutated_graph_gives_a_verdict_or_one_error(tmp_path: Path, data: st.DataObject, name: str) -> None:
    file = "openvino_model.xml" if name.startswith("openvino") else "model.onnx"
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(ARTIFACTS / name, folder)
    changed = bytearray((ARTIFACTS / name / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    (folder / file).write_bytes(bytes(changed))
    accepts(lambda: compare(folder, ARTIFACTS / "parent-bf16"))


@pytest.mark.slow
def test_memory_does_not_grow_with_a_matrix_that_is_stored_the_other_way_round(tmp_path: Path, onnx: Any) -> None:
    rows, columns = 4096, 4096
    tile = (np.random.default_rng(0).standard_normal((128, 128)) * 0.05).astype(np.float32)
    scale = np.float32(np.abs(tile).max() / 127)
    codes = np.tile(np.rint(tile.T / scale).astype(np.int8), (columns // 128, rows // 128))
    name = "model.layers.0.self_attn.q_proj.weight"
    parent = make.save(tmp_path / "parent", {name: np.tile(tile, (rows // 128, columns // 128))}, CONFIG)
    child = tmp_path / "child"
    child.mkdir()
    (child / "codes.bin").write_bytes(codes.tobytes())
    tensors = [
        onnx.tensor("w", kind=3, shape=codes.shape, location="codes.bin", offset="0", length=str(codes.nbytes)),
        onnx.tensor("s", np.array(scale)),
    ]
    nodes = [
        onnx.node("DequantizeLinear", ["w", "s"], ["d"]),
        onnx.node("MatMul", ["x", "d"], ["y"], "/model/layers.0/self_attn/q_proj/MatMul"),
    ]
    (child / "model.onnx").write_bytes(onnx.model(nodes, tensors))
    del codes
    tracemalloc.start()
    found = compare(child, parent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.verdict, found.layers[0].weights) == ("proved", rows * columns)
    assert peak < 32 * 2**20
