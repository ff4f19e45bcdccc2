"""What a loader would take instead of the weights that were proved, and damage in a few places."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_quantgov.artifact.dequantize.interface import Block, unreadable
from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.derivation.folding import is_plain_product
from mlflow_quantgov.artifact.derivation.judge import best_column
from mlflow_quantgov.artifact.derivation.local import Local
from mlflow_quantgov.artifact.derivation.measure import Measured
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.errors import ArtifactError

LAYER = "model.layers.0.mlp.down_proj"
Change = Callable[..., Path]


@pytest.fixture
def changed(artifacts: Path, tmp_path: Path) -> Change:
    """A copy of an artifact with other tensors, other configs."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")

    def change(
        name: str, tensors: dict[str, Any] | None = None, quantization: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None, beside: dict[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        folder = tmp_path / "changed"
        folder.mkdir()
        stored = safetensors.load_file(artifacts / name / "model.safetensors")
        added = {key: torch.as_tensor(value) for key, value in (tensors or {}).items()}
        safetensors.save_file(stored | added, folder / "model.safetensors")
        said = json.loads((artifacts / name / "config.json").read_text(encoding="utf-8")) | (config or {})
        said["quantization_config"] = said["quantization_config"] | (quantization or {})
        (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
        if beside is not None:
            (folder / "quantize_config.json").write_text(json.dumps(beside), encoding="utf-8")
        return folder

    return change


@pytest.mark.parametrize("name", ["gptq-w4g32", "ct-w4g32"])
def test_a_matrix_is_stored_once(changed: Change, name: str) -> None:
    folder = changed(name, {f"{LAYER}.weight": np.zeros((64, 96), np.float16)})
    with pytest.raises(ArtifactError, match=f"stored twice, as .* and as {LAYER}.weight"):
        inspect(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ct-w4g32", {"ignore": [LAYER]}),
        ("ct-w4g32", {"ignore": ["lm_head", "re:.*proj$"]}),
        ("gptq-w4g32", {"modules_to_not_convert": ["down_proj"]}),
        ("gptq-w4g32", {"dynamic": {r"-:.*layers\.0\.mlp\.down_proj": {}}}),
        ("awq-w4g32", {"modules_to_not_convert": ["model.layers.0.mlp"]}),
    ],
)
def test_what_is_packed_is_not_left_out(changed: Change, name: str, said: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="is not quantized"):
        inspect(changed(name, quantization=said))


@pytest.mark.parametrize("pattern", [r"(m)odel.*|\1", "(?i)MODEL.*", "(?:" * 40 + "model" + ")" * 40])
def test_a_pattern_that_nobody_follows_leaves_it_open(changed: Change, pattern: str) -> None:
    with pytest.raises(ArtifactError, match="not run here"):
        inspect(changed("ct-w4g32", quantization={"ignore": [f"re:{pattern}"]}))


def test_a_pattern_that_takes_re_forever_is_followed(changed: Change) -> None:
    folder = changed("ct-w4g32", quantization={"ignore": ["re:([a-z0-9._]+)+!$", "re:" + "(.*)*" * 9 + "!"]})
    assert inspect(folder).quantization.bits == 4


def test_what_is_rightly_left_out_stays_readable(changed: Change) -> None:
    folder = changed("ct-w4g32", quantization={"ignore": ["lm_head", "re:.*(q|k)_norm$", "model.layers.00"]})
    assert inspect(folder).quantization.bits == 4


def test_an_order_that_the_config_denies(changed: Change) -> None:
    with pytest.raises(ArtifactError, match="desc_act false"):
        inspect(changed("gptq-w4g32-desc", quantization={"desc_act": False}))


def test_two_configs_that_read_zero_points_otherwise(changed: Change) -> None:
    beside = {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"}
    with pytest.raises(ArtifactError, match="checkpoint format"):
        inspect(changed("gptq-w4g32", beside=beside))


@pytest.mark.parametrize("kind", ["int8", "int32", "bool", "complex64"])
def test_tensors_that_nobody_compares_prove_nothing(changed: Change, artifacts: Path, kind: str) -> None:
    folder = changed("gptq-w4g32", {f"{LAYER}.bias": np.ones(64, kind)})
    found = compare(folder, artifacts / "parent-bf16")
    assert found.verdict == "unproved" and f"{LAYER}.bias" in found.reason


def quantized(bits: float, group: int | None, shape: tuple[int, int]) -> Any:
    return replace(unreadable("w", shape, "int", (), bits, "made up"), group_size=group)


def seen(edit: Callable[[Any], None], bits: float = 4, group: int | None = 32) -> Local:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    values = np.round(weights * 4) / 4
    edit(values)
    found = Local()
    found.add(quantized(bits, group, weights.shape), weights, Block(values))
    return found


def test_rounding_leaves_no_damage() -> None:
    for bits in (2, 3, 4, 8):
        assert seen(lambda values: None, bits).problem is None


def test_one_emptied_group_is_seen() -> None:
    def empty(values: Any) -> None:
        values[3, 32:64] = 1e-6

    assert "1 of 256 groups" in str(seen(empty).problem)


def test_one_negated_row_and_two_swapped_are_seen() -> None:
    def negate(values: Any) -> None:
        values[5] *= -1

    def swap(values: Any) -> None:
        values[[1, 2]] = values[[2, 1]]

    assert "1 of 64 rows" in str(seen(negate).problem)
    assert "2 of 64 rows" in str(seen(swap).problem)


def test_a_column_of_padding_is_no_witness() -> None:
    found = Measured(4, rows=1000)
    found.outside_of_column = np.array([0, 400, 390, 410])
    found.column_signal = np.array([0.0, 10.0, 10.0, 10.0])
    assert not best_column([found]).fits
    found.column_signal[0] = 10.0
    assert best_column([found]).fits


@pytest.mark.parametrize(
    ("consumer", "beside", "plain"),
    [
        ("mlp.down_proj", ["mlp.gate_proj", "mlp.up_proj"], True),
        ("mlp.down_proj", ["mlp.up_proj"], False),
        ("mlp.down_proj", ["mlp.gate_proj", "mlp.up_proj", "mlp.ffn_sub_norm"], False),
        ("self_attn.o_proj", ["self_attn.v_proj", "self_attn.q_norm", "self_attn.k_norm"], True),
        ("self_attn.o_proj", ["self_attn.v_proj", "self_attn.attn_sub_norm"], False),
    ],
)
def test_nothing_but_a_product_between(consumer: str, beside: list[str], plain: bool) -> None:
    names = [f"model.layers.0.{one}.weight" for one in [consumer, *beside]]
    assert is_plain_product(f"model.layers.0.{consumer}.weight", names) is plain
