"""True and false parents: every claim of docs/explanation/descent.md on models that are made here."""

from __future__ import annotations

import functools
import json
import math
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16, to_float16
from mlflow_quantgov.artifact.derivation.counting import allowance, least_rate
from mlflow_quantgov.artifact.derivation.measure import measure
from mlflow_quantgov.artifact.derivation.resolution import change_of_outside, outside_of_change
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.lineage import ModelFacts, prove

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_parents as others
import descent_quantizers as make

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
HIDDEN, INNER, LAYERS = 128, 192, 2
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 64,
}  # fmt: skip


def some_weights(seed: int = 0) -> dict[str, Any]:
    """A small Llama with random numbers."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return (random.standard_normal((rows, columns)) * 0.05).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(64, HIDDEN), "lm_head.weight": matrix(64, HIDDEN)}
    norms = ["model.norm.weight"]
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}."
        weights |= {f"{stem}self_attn.{one}_proj.weight": matrix(HIDDEN, HIDDEN) for one in "qkvo"}
        weights |= {f"{stem}mlp.{one}_proj.weight": matrix(INNER, HIDDEN) for one in ("gate", "up")}
        weights[f"{stem}mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
        norms += [f"{stem}input_layernorm.weight", f"{stem}post_attention_layernorm.weight"]
    return weights | {name: (1 + 0.2 * random.standard_normal(HIDDEN)).astype(np.float32) for name in norms}


def some_inputs(weights: dict[str, Any]) -> dict[str, Any]:
    """Correlated inputs of each matrix, [tokens, channels]; those that share an input have the same."""
    found = {}
    for name, one in weights.items():
        if make.LINEAR.search(name):
            random = np.random.default_rng(one.shape[1] + ("o_proj" in name))
            mixing = random.standard_normal((16, one.shape[1])) + 0.5 * random.standard_normal(one.shape[1])
            tokens = random.standard_normal((512, 16)) @ mixing + random.standard_normal((512, one.shape[1]))
            found[name] = tokens * np.exp(random.standard_normal(one.shape[1]) / 2)
    return found


WEIGHTS = some_weights()
INPUTS = some_inputs(WEIGHTS)
HESSIANS = {name: one.T @ one for name, one in INPUTS.items()}
MAGNITUDES = {name: np.abs(one).mean(0) for name, one in INPUTS.items()}

QUANTIZERS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {
    "rounded": lambda path, one: make.write_gptq(path, one, CONFIG, 4, 32),
    "gptq": lambda path, one: make.write_gptq(path, one, CONFIG, 4, 32, HESSIANS),
    "gptq-act-order": lambda path, one: make.write_gptq(path, one, CONFIG, 4, 64, HESSIANS, act_order=True),
    "gptq-2-bit": lambda path, one: make.write_gptq(path, one, CONFIG, 2, 16, HESSIANS),
    "awq": lambda path, one: make.write_awq(path, one, CONFIG, 32, MAGNITUDES),
    "smoothquant": lambda path, one: make.write_smoothquant(path, one, CONFIG, MAGNITUDES),
}
QUICK = {("gptq", "another seed"), ("gptq", "changed by 5 %"), ("gptq-2-bit", "changed by 5 %, rank 4")}
FALSE: dict[str, dict[str, Any]] = {
    "another seed": others.another_seed(WEIGHTS),
    "changed by 5 %": others.changed(WEIGHTS, 0.05),
    "changed by 5 %, rank 4": others.changed(WEIGHTS, 0.05, rank=4),
    "quantized before, 4 bit": others.once_quantized(WEIGHTS, 4, 32),
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the true parent."""
    path: Path = make.save(tmp_path_factory.mktemp("parent"), WEIGHTS, CONFIG)
    return path


@pytest.fixture(scope="module")
def truly(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Descent]:
    """What comparing the true child of a quantizer with its parent gives; each is quantized once."""

    @functools.cache
    def found(quantizer: str) -> Descent:
        return compare(QUANTIZERS[quantizer](tmp_path_factory.mktemp("true") / "child", WEIGHTS), parent)

    return found


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The parent of the fixtures, changed as a label says; each is written once."""

    @functools.cache
    def written(label: str) -> Path:
        weights, config = make.load(ARTIFACTS / "parent-bf16")
        changed = others.once_quantized(weights, 4, 32) if "before" in label else \
            others.changed(weights, float(label.split()[2]) / 100)  # fmt: skip
        path: Path = make.save(tmp_path_factory.mktemp("moved") / "other", changed, config | {"dtype": "float32"})
        return path

    return written


@functools.cache
def compare_with_parent(child: Path) -> Descent:
    """What a fixture shows beside its true parent."""
    return compare(child, child.parent / "parent-bf16")


def problems(found: Descent) -> dict[str, str]:
    return {one.name: one.problem for one in found.layers if one.problem}


FIXTURES = [
    "autoround-w4g32-asym", "autoround-w4g32-mixed", "fp8-block", "hqq-w3g32-axis0", "hqq-w4g32", "modelopt-fp8-kv",
    "modelopt-nvfp4", "quanto-int4", "awq-w4g32", "bnb-fp4", "bnb-int8", "bnb-nf4-double", "ct-fp8-tensor", "ct-w3-channel", "ct-w4g32", "ct-w4g32-asym",
    "ct-w8a8", "gptq-w2g16-v2", "gptq-w3g32-asym", "gptq-w4g32", "gptq-w4g32-desc", "gptq-w8-channel", "parent-sharded",
    "tiny-BF16.gguf", "tiny-F16.gguf", "tiny-Q4_0.gguf", "tiny-Q4_1.gguf", "tiny-Q8_0.gguf", "torchao-float8wo",
    "torchao-int4g32", "torchao-int8dyn", "torchao-int8wo",
]  # fmt: skip


@pytest.mark.parametrize("name", FIXTURES)
def test_what_real_tools_made_comes_from_its_parent(artifacts: Path, name: str) -> None:
    found = compare(artifacts / name, artifacts / "parent-bf16")
    assert (found.verdict, problems(found)) == ("proved", {})
    assert all(one.trace in {"rounded", "unchanged"} for one in found.layers)
    quantized = [one for one in found.layers if one.bits is not None]
    # The resolution is that of a few thousand weights; what it says must be below the error that it looks through.
    assert all(one.resolution is not None and one.resolution < 0.2 * one.relative_error + 0.002 for one in quantized)
    assert all(one.reachable_error is not None and one.relative_error < 1.5 * one.reachable_error for one in quantized)
    json.dumps(found.to_dict())


@pytest.mark.parametrize("name", [one for one in FIXTURES if one != "parent-sharded"])
def test_what_real_tools_made_does_not_come_from_another_seed(artifacts: Path, tmp_path: Path, name: str) -> None:
    weights, config = make.load(artifacts / "parent-bf16")
    other = make.save_bfloat16(tmp_path / "other", others.another_seed(weights), config)
    found = compare(artifacts / name, other)
    assert found.verdict == "refuted"
    assert len(problems(found)) == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in FIXTURES if one != "parent-sharded" and "F16" not in one])
@pytest.mark.parametrize("false", ["changed by 1 %", "changed by 3 %", "quantized before, 4 bit"])
def test_what_real_tools_made_does_not_come_from_a_changed_parent(
    artifacts: Path, moved: Callable[[str], Path], name: str, false: str
) -> None:
    truly = compare_with_parent(artifacts / name)
    found = compare(artifacts / name, moved(false))
    distance = 0.09 if "before" in false else float(false.split()[2]) / 100
    assert truly.resolution is not None
    if distance > 1.2 * truly.resolution:
        assert found.verdict != "proved"
    else:
        # Two-bit codes of a matrix this small show no change of one per cent, and say so.
        assert found.verdict != "proved" or (found.resolution is not None and found.resolution >= distance)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_the_true_parent_is_proved(truly: Callable[[str], Descent], quantizer: str) -> None:
    found = truly(quantizer)
    assert (found.verdict, problems(found)) == ("proved", {})
    traces = {one.trace for one in found.layers if one.bits is not None}
    assert traces == ({"compensated"} if quantizer.startswith("gptq") else {"rounded"})
    assert found.holds and found.resolution is not None


# GPTQ takes seconds for each; its plain form, and one of 2 bit that cannot tell, stand for it where time is short.
@pytest.mark.parametrize(
    ("quantizer", "false"),
    [
        pytest.param(one, false, marks=[] if (one, false) in QUICK or "gptq" not in one else [pytest.mark.slow])
        for one in QUANTIZERS
        for false in FALSE
    ],
)
def test_a_false_parent_is_not(
    parent: Path, truly: Callable[[str], Descent], tmp_path: Path, quantizer: str, false: str
) -> None:
    found = compare(QUANTIZERS[quantizer](tmp_path / "child", FALSE[false]), parent)
    true = truly(quantizer)
    distance = {"another seed": 1.4, "quantized before, 4 bit": 0.09}.get(false, 0.05)
    if true.resolution is not None and distance > 1.5 * true.resolution:
        assert found.verdict != "proved"
    elif found.verdict == "proved":
        # 2-bit GPTQ of matrices this small does not show changes of a few per cent, and says so.
        assert quantizer == "gptq-2-bit" and found.resolution is not None and found.resolution >= distance
    if false == "another seed":
        assert found.verdict == "refuted"


@pytest.mark.parametrize("quantizer", ["rounded", "awq", "smoothquant"])
def test_changes_above_the_resolution_show_and_others_do_not(parent: Path, tmp_path: Path, quantizer: str) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    limit = compare(QUANTIZERS[quantizer](tmp_path / "true", WEIGHTS), parent).resolution
    assert limit is not None
    for number, (factor, proved) in enumerate(((0.05, True), (12, False))):
        moved = others.changed(WEIGHTS, factor * limit)
        found = compare(QUANTIZERS[quantizer](tmp_path / f"moved-{number}", moved), parent)
        assert (found.verdict == "proved") is proved
        assert (name in problems(found)) is not proved


@pytest.mark.parametrize("quantizer", ["rounded", "awq", "smoothquant"])
def test_one_fine_tuned_matrix_is_named(parent: Path, tmp_path: Path, quantizer: str) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    moved = WEIGHTS | {name: others.changed(WEIGHTS, 0.03)[name]}
    found = compare(QUANTIZERS[quantizer](tmp_path / "child", moved), parent)
    assert set(problems(found)) == {name}
    assert found.reason.startswith(f"1 of {len(WEIGHTS)} tensors")
    assert found.worst[0].name == name


def test_another_size_is_refuted_by_its_shapes(parent: Path, tmp_path: Path) -> None:
    larger = {name: np.concatenate([one, one]) if "mlp.up" in name else one for name, one in WEIGHTS.items()}
    config = CONFIG | {"intermediate_size": 2 * INNER}
    found = compare(make.write_gptq(tmp_path / "child", larger, config, 4, 32), parent)
    assert (found.verdict, found.layers) == ("refuted", ())
    assert "up_proj" in found.reason


def test_a_missing_layer_and_an_unknown_one_are_refuted(parent: Path, tmp_path: Path) -> None:
    config = CONFIG | {"num_hidden_layers": 1}
    shorter = {name: one for name, one in WEIGHTS.items() if "layers.1." not in name}
    short = make.write_gptq(tmp_path / "short", shorter, config, 4, 32)
    assert "is missing" in compare(short, parent).reason
    found = compare(QUANTIZERS["rounded"](tmp_path / "long", WEIGHTS), make.save(tmp_path / "p", shorter, config))
    assert (found.verdict, "has no tensor" in found.reason) == ("refuted", True)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"]
)
@pytest.mark.parametrize("amount", [0.001, 0.05])
def test_unquantized_tensors_must_be_the_parents(parent: Path, tmp_path: Path, name: str, amount: float) -> None:
    random = np.random.default_rng(5)
    one = WEIGHTS[name]
    trained = WEIGHTS | {name: (one * (1 + amount * random.standard_normal(one.shape))).astype(np.float32)}
    # A norm that scales were moved out of is known through the matrices behind it, as well as these are.
    blurred = name.endswith("input_layernorm.weight") and amount == 0.001
    for quantizer in ("rounded",) if blurred else ("rounded", "awq"):
        found = compare(QUANTIZERS[quantizer](tmp_path / quantizer, trained), parent)
        assert found.verdict != "proved"


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [("h.0.attn.bias", (1, 1, 8, 8), False), ("h.0.attn.bias", (8,), True), ("h.0.attn.c_attn.bias", (8,), True)],
)
def test_masks_of_gpt_2_are_tables_and_its_biases_are_not(
    tmp_path: Path, name: str, shape: tuple[int, ...], counts: bool
) -> None:
    stored = {
        one: np.tril(np.full(shape, one, np.float32)) if len(shape) > 1 else np.full(shape, one, np.float32)
        for one in (1, 2)
    }
    made = {one: make.save(tmp_path / str(one), WEIGHTS | {name: stored[one]}, CONFIG) for one in (1, 2)}
    found = compare(made[1], made[2])
    assert problems(found).keys() == ({name} if counts else set())
    assert found.verdict == ("refuted" if counts else "proved")
    # A mask that is none is no weight, and yet what some loader computes with.
    assert compare(made[2], made[1]).verdict == ("refuted" if counts else "unproved")


def test_scales_that_no_norm_takes_back_are_found(parent: Path, tmp_path: Path) -> None:
    """What AutoAWQ 0.2.9 writes on a CPU, where its search scales the weights once too often."""
    twice = make.fold(WEIGHTS, MAGNITUDES, 0.2, products=False)
    norms = {name: one for name, one in WEIGHTS.items() if name.endswith("norm.weight")}
    found = compare(QUANTIZERS["awq"](tmp_path / "child", twice | norms), parent)
    assert found.verdict != "proved"
    assert "nothing before it takes that back" in problems(found)["model.layers.0.self_attn.q_proj.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("cast", [to_bfloat16, to_float16])
def test_a_parent_that_was_held_in_16_bits_is_the_parent(
    parent: Path, tmp_path: Path, cast: Callable[[Any], Any]
) -> None:
    held = {name: cast(one) for name, one in WEIGHTS.items()}
    for quantizer in ("rounded", "gptq", "smoothquant"):
        found = compare(QUANTIZERS[quantizer](tmp_path / quantizer, held), parent)
        assert (found.verdict, problems(found)) == ("proved", {})
    assert found.cast == cast.__name__.removeprefix("to_")


def test_casts_are_those_of_ml_dtypes() -> None:
    import ml_dtypes

    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 10.0 ** np.arange(-5, 5).repeat(1000)
    values = values.astype(np.float32)
    assert np.array_equal(to_bfloat16(values), values.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert np.array_equal(to_float16(values), values.astype(np.float16).astype(np.float32))


def test_a_grid_that_fits_anything_proves_nothing(parent: Path, tmp_path: Path) -> None:
    child = QUANTIZERS["rounded"](tmp_path / "child", WEIGHTS)
    tensors = {}
    for name, one in read_safetensors(child / "model.safetensors"):
        tensors[name] = np.array(one)
        if name.endswith("qweight"):
            tensors[name] = np.full_like(tensors[name], np.array(0x88888888, dtype=np.uint32).view(np.int32))
        if name.endswith("scales"):
            tensors[name] = np.full_like(tensors[name], 100)
    write_safetensors(child / "model.safetensors", tensors)
    found = compare(child, parent)
    assert found.verdict == "unproved"
    assert "another model's weights would round to the same codes" in found.reason


def test_numbers_that_are_not_finite_are_refuted(parent: Path, tmp_path: Path) -> None:
    child = QUANTIZERS["rounded"](tmp_path / "child", WEIGHTS)
    tensors = {name: np.array(one) for name, one in read_safetensors(child / "model.safetensors")}
    tensors["model.layers.0.mlp.up_proj.scales"][0, 0] = np.nan
    write_safetensors(child / "model.safetensors", tensors)
    found = compare(child, parent)
    assert found.verdict == "refuted" and "not finite" in problems(found)["model.layers.0.mlp.up_proj.weight"]


def test_parts_that_do_not_fit_are_an_error_and_no_traceback(artifacts: Path, tmp_path: Path) -> None:
    child = tmp_path / "child"
    shutil.copytree(artifacts / "bnb-nf4-double", child)
    from safetensors.torch import load_file, save_file

    tensors = load_file(child / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight.nested_quant_map"
    tensors[name] = tensors[name][:2].clone()
    save_file(tensors, child / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"up_proj.weight cannot be dequantized: its parts do not fit"):
        compare(child, artifacts / "parent-bf16")


def test_norms_of_gemma_are_those_of_the_parent_although_one_was_added(tmp_path: Path) -> None:
    import gguf

    random = np.random.default_rng(0)
    norm = (random.standard_normal(64) * 10.0 ** random.integers(-8, 1, 64)).astype(np.float32)
    embedding = random.standard_normal((4, 64)).astype(np.float32)
    config = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}
    parent = make.save(tmp_path, {"model.norm.weight": norm, "model.embed_tokens.weight": embedding}, config)
    for shift, verdict in ((1.0, "proved"), (1.01, "refuted")):
        writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma2")
        writer.add_tensor("output_norm.weight", norm + np.float32(shift))
        writer.add_tensor("token_embd.weight", embedding)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert compare(tmp_path / "x.gguf", parent / "model.safetensors").verdict == verdict


def test_endless_rows_are_not_read(tmp_path: Path) -> None:
    weights = {"model.embed_tokens.weight": np.zeros((1, 2**20 + 1), dtype=np.float32)}
    folder = make.save(tmp_path / "wide", weights, {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    found = compare(folder, folder)
    assert (found.verdict, "too long to compare" in found.reason) == ("unproved", True)


def test_a_quantized_parent_is_no_parent(artifacts: Path) -> None:
    found = compare(artifacts / "gptq-w4g32", artifacts / "ct-w4g32")
    assert (found.verdict, "itself quantized" in found.reason) == ("unproved", True)


def test_a_model_written_back_as_floats_is_not_its_parent(artifacts: Path) -> None:
    found = compare(artifacts / "dequantized-bf16", artifacts / "parent-bf16")
    assert found.verdict == "refuted"
    assert len(problems(found)) == 7


def test_what_cannot_be_dequantized_stays_unproved(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_quantgov.artifact.dequantize import gguf_blocks

    monkeypatch.delitem(gguf_blocks.DECODERS, "Q4_0")
    found = compare(artifacts / "tiny-Q4_0.gguf", artifacts / "parent-bf16")
    assert found.verdict == "unproved"
    assert "cannot be dequantized here" in found.reason


@pytest.mark.parametrize("change", [0.0003, 0.002, 0.01])
def test_the_formula_of_the_resolution_is_what_happens(parent: Path, tmp_path: Path, change: float) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    flat = {one: np.ones(weight.shape[-1]) for one, weight in WEIGHTS.items()}
    child = make.write_smoothquant(tmp_path / "child", others.changed(WEIGHTS, change), CONFIG, flat)
    found = measure(matrices(child)[name], matrices(parent)[name], lambda values: values)
    spread = math.sqrt(found.signal / found.weights)
    expected = outside_of_change(change * spread, found, anywhere=True)
    assert found.share == pytest.approx(expected, rel=0.1)
    assert change_of_outside(expected, found, anywhere=True) == pytest.approx(1.25 * change, rel=0.01)
    # The same from where the weights of the true parent were found to lie.
    truly = make.write_smoothquant(tmp_path / "true", WEIGHTS, CONFIG, flat)
    counted = measure(matrices(truly)[name], matrices(parent)[name], lambda values: values)
    assert outside_of_change(change * spread, counted) == pytest.approx(found.share, rel=0.1)


def test_chances_of_few_events() -> None:
    from scipy import stats

    for seen in (0, 1, 5, 40, 2000):
        rate = least_rate(seen, 1e-3)
        assert stats.poisson.cdf(seen, rate) == pytest.approx(1e-3, rel=0.1 if seen < 1000 else 0.5)
    assert stats.poisson.sf(allowance(2e-3, 10_000), 20) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["rounded", "awq"])
def test_memory_does_not_grow_with_the_matrix(tmp_path: Path, quantizer: str) -> None:
    rows, columns = 2048, 8192
    weight = np.tile(WEIGHTS["model.layers.0.mlp.down_proj.weight"][:, :128], (rows // 128, columns // 128))
    wide = {"model.layers.0.mlp.down_proj.weight": weight, "model.embed_tokens.weight": np.ones((4, 8), np.float32)}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    parent = make.save_bfloat16(tmp_path / "parent", wide, config)
    weights, _ = make.load(parent)
    tall, narrow = weights["model.layers.0.mlp.down_proj.weight"][:128, :128], 128
    small = {"model.layers.0.mlp.down_proj.weight": np.ascontiguousarray(tall)}
    tensors = small_tensors(tmp_path, small, quantizer, config)
    repeats = (columns // narrow, rows // 128)
    large = {name: np.tile(one, repeats if one.ndim == 2 else columns // narrow) for name, one in tensors.items()}
    if "model.layers.0.mlp.down_proj.g_idx" in large:
        large["model.layers.0.mlp.down_proj.g_idx"] = (np.arange(columns) // 32).astype(np.int32)
    child = tmp_path / "small"
    large["model.embed_tokens.weight"] = np.ones((4, 8), np.float32)
    write_safetensors(child / "model.safetensors", large)
    del weight, wide, weights, large
    tracemalloc.start()
    found = compare(child, parent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.verdict == "proved"
    assert sum(one.weights for one in found.layers) == rows * columns + 32
    # The matrix has 64 MiB as float32; both sides of it, their cells and sums stay below half of that.
    assert peak < 32 * 2**20


def small_tensors(tmp_path: Path, small: dict[str, Any], quantizer: str, config: dict[str, Any]) -> dict[str, Any]:
    """The stored tensors of one small matrix."""
    if quantizer == "awq":
        flat = {name: np.ones(one.shape[1]) for name, one in small.items()}
        flat |= {f"model.layers.0.{one}.weight": np.ones(128) for one in ("self_attn.q_proj", "mlp.gate_proj")}
        extra = {f"model.layers.0.{one}.weight": np.ones((128, 128), np.float32) for one in
                 ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")}  # fmt: skip
        extra |= {f"model.layers.0.{one}.weight": np.ones(128, np.float32) for one in
                  ("input_layernorm", "post_attention_layernorm")}  # fmt: skip
        make.write_awq(tmp_path / "small", extra | small, config, 32, flat)
    else:
        make.write_gptq(tmp_path / "small", small, config, 4, 32)
    stored = dict(read_safetensors(tmp_path / "small" / "model.safetensors"))
    return {name: np.array(one) for name, one in stored.items() if "down_proj" in name}


def facts_of(path: Path) -> ModelFacts:
    found = inspect(path)
    return ModelFacts(f"sha256:{path.name}", f"sha256:all-{path.name}", "sha256:0", found.quantization, found.structure)


def test_the_level_numeric_is_reached_only_by_weights(artifacts: Path) -> None:
    child, parent = facts_of(artifacts / "gptq-w4g32"), facts_of(artifacts / "parent-bf16")
    claimed = {"uri": "models:/p/1", "weights": parent.weights}

    def good() -> Descent:
        return compare(artifacts / "gptq-w4g32", artifacts / "parent-bf16")

    def bad() -> Descent:
        return Descent("refuted", "It is another model.", (), "as stored", None)

    assert prove(child, parent, claimed).level == "structure"
    proved = prove(child, parent, claimed, good)
    assert (proved.level, proved.problems) == ("numeric", ())
    assert proved.descent is not None and proved.descent.holds
    refuted = prove(child, parent, claimed, bad)
    assert (refuted.level, refuted.problems) == ("structure", ("It is another model.",))


def test_weights_are_not_read_where_the_structure_differs(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wider"
    shutil.copytree(artifacts / "gptq-w4g32", folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_attention_heads": 8}
    (folder / "config.json").write_text(json.dumps(config))
    parent = facts_of(artifacts / "parent-bf16")

    def never() -> Descent:
        raise AssertionError("the weights were read")

    claimed = {"uri": "models:/p/1", "weights": parent.weights}
    assert prove(facts_of(folder), parent, claimed, never).level == "digest"
