"""What rounding costs in a layer's output, whatever moved scales between layers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.derivation.outputs import output_errors, quantized_pairs

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_quantizers as make

HIDDEN, INNER = 64, 96
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 64,
}  # fmt: skip


@pytest.fixture
def weights() -> dict[str, Any]:
    """A Llama of one block with random numbers."""
    random = np.random.default_rng(0)
    stem, shapes = (
        "model.layers.0.",
        {"mlp.gate": (INNER, HIDDEN), "mlp.up": (INNER, HIDDEN), "mlp.down": (HIDDEN, INNER)},
    )
    shapes |= {f"self_attn.{one}": (HIDDEN, HIDDEN) for one in "qkvo"}
    found = {f"{stem}{name}_proj.weight": random.standard_normal(shape) * 0.05 for name, shape in shapes.items()}
    found |= {name: random.standard_normal((64, HIDDEN)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for name in ("model.norm", f"{stem}input_layernorm", f"{stem}post_attention_layernorm"):
        found[f"{name}.weight"] = 1 + 0.2 * random.standard_normal(HIDDEN)
    return {name: one.astype(np.float32) for name, one in found.items()}


def inputs_of(name: str) -> list[Any]:
    random = np.random.default_rng(3)
    width = INNER if "down_proj" in name else HIDDEN
    plain = random.standard_normal((50, width)).astype(np.float32)
    return [plain, plain * np.exp(random.standard_normal(width)).astype(np.float32)]


@pytest.mark.parametrize("quantizer", ["rounded", "awq", "smoothquant"])
def test_scales_that_were_moved_are_taken_back(tmp_path: Path, weights: dict[str, Any], quantizer: str) -> None:
    parent = make.save(tmp_path / "parent", weights, CONFIG)
    sizes = {
        name: np.exp(np.random.default_rng(1).standard_normal(one.shape[1]))
        for name, one in weights.items()
        if one.ndim > 1
    }
    child = {
        "rounded": lambda path: make.write_gptq(path, weights, CONFIG, 4, 32),
        "awq": lambda path: make.write_awq(path, weights, CONFIG, 32, sizes),
        "smoothquant": lambda path: make.write_smoothquant(path, weights, CONFIG, sizes),
    }[quantizer](tmp_path / "child")
    pairs = quantized_pairs(child, parent)
    assert pairs is not None
    shares: list[float] = []
    found = output_errors(pairs, inputs_of, shares.append)
    assert set(found) == {name for name in weights if name.endswith("_proj.weight")}
    assert max(max(errors) for errors in found.values()) < 0.03
    assert shares == sorted(shares) and shares[-1] == 1


def test_scales_that_nobody_can_take_back_leave_a_layer_out(tmp_path: Path, weights: dict[str, Any]) -> None:
    parent = make.save(tmp_path / "parent", weights, CONFIG)
    name = "model.layers.0.self_attn.o_proj.weight"
    factors = np.exp(np.random.default_rng(5).standard_normal(HIDDEN)).astype(np.float32)
    child = make.write_gptq(tmp_path / "child", weights | {name: weights[name] * factors}, CONFIG, 4, 32)
    pairs = quantized_pairs(child, parent)
    assert pairs is not None
    assert name not in (found := output_errors(pairs, inputs_of)) and len(found) == 6


def test_models_that_are_no_pair_have_no_errors(tmp_path: Path, weights: dict[str, Any]) -> None:
    parent = make.save(tmp_path / "parent", weights, CONFIG)
    fewer = {name: one for name, one in weights.items() if "gate" not in name}
    assert quantized_pairs(make.write_gptq(tmp_path / "child", fewer, CONFIG, 4, 32), parent) is None
