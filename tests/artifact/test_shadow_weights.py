"""What lies beside the compared weights: a second weight of one module, tensors that nobody compared, lying configs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.formats.patterns import matches_from_start
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.structure import structure_of_gguf
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.errors import ArtifactError

Stored = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Type, shape and bytes by name."""
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
MODULE = "model.layers.0.self_attn.q_proj"
PACKED = {
    "gptq-w4g32": "qweight", "awq-w4g32": "qweight", "ct-w4g32": "weight_packed", "hqq-w4g32": "W_q",
    "torchao-int8wo": "_weight_qdata", "quanto-int4": "weight._data._data",
}  # fmt: skip


@pytest.fixture
def changed(artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies an artifact with other tensors beside its own, and another config."""

    def copy(name: str, beside: Stored | None = None, config: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(artifacts / name, folder)
        opened = open_safetensors(folder / "model.safetensors")
        stored = {one.name: (one.dtype, one.shape, one.raw().tobytes()) for one in opened.tensors.values()}
        write(opened.path, stored | (beside or {}), opened.metadata)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
        return folder

    return copy


def write(path: Path, stored: Stored, metadata: dict[str, str]) -> None:
    """A safetensors file with tensors of any type."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, (dtype, shape, data) in stored.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in stored.values()))


def floats(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F16", shape, bytes(2 * prod(shape))


def quantization(artifacts: Path, name: str) -> dict[str, Any]:
    found = json.loads((artifacts / name / "config.json").read_text()).get("quantization_config", {})
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", PACKED)
def test_a_module_is_not_stored_twice(artifacts: Path, changed: Callable[..., Path], name: str) -> None:
    """A loader that the config tells to leave the module alone takes the floats."""
    shape = next(one.shape for one in inspect(artifacts / name).quantization.layers if one.name == MODULE)
    folder = changed(name, {f"{MODULE}.weight": floats(*shape)})
    with pytest.raises(ArtifactError, match="stored twice") as error:
        inspect(folder)
    assert f"{MODULE}.weight" in error.value.what and PACKED[name] in error.value.what


def test_a_gguf_weight_does_not_stand_under_two_names() -> None:
    shapes = dict.fromkeys(("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"), (8, 8))
    with pytest.raises(ArtifactError, match=r"blk\.0\.attn_q\.weight and as model\.layers\.0"):
        structure_of_gguf({"general.architecture": "llama"}, shapes)


@pytest.mark.parametrize("name", ["gptq-w4g32", "ct-w4g32", "hqq-w4g32"])
@pytest.mark.parametrize("dtype", ["I8", "U8", "BOOL", "F8_E4M3", "I32", "C64"])
def test_a_tensor_that_nobody_compares_is_named(changed: Callable[..., Path], name: str, dtype: str) -> None:
    """transformers casts whatever a bias is stored as."""
    size = {"I32": 4, "C64": 8}.get(dtype, 1)
    folder = changed(name, {f"{MODULE}.bias": (dtype, (64,), bytes(64 * size))})
    found = compare(folder, ARTIFACTS / "parent-bf16")
    assert found.verdict == "unproved" and f"{MODULE}.bias" in found.reason and dtype in found.reason


@pytest.mark.parametrize(
    ("table", "stored", "verdict"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", 10000.0 ** (-np.arange(8) / 8), "proved"),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", np.ones(8), "unproved"),
        ("model.position_ids", np.arange(8), "proved"),
        ("model.position_ids", np.arange(8)[::-1], "unproved"),
        (f"{MODULE}.output_scale", np.ones(1), "proved"),
        (f"{MODULE}.output_scale", -np.ones(1), "refuted"),
    ],
)
def test_tables_must_hold_what_the_config_says(
    changed: Callable[..., Path], table: str, stored: np.ndarray, verdict: str
) -> None:
    folder = changed("gptq-w4g32", {table: ("F32", stored.shape, stored.astype("<f4").tobytes())})
    assert compare(folder, ARTIFACTS / "parent-bf16").verdict == verdict


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ct-w4g32", {"ignore": ["lm_head", "re:.*proj$"]}),
        ("ct-w4g32", {"ignore": [MODULE]}),
        (
            "ct-w4g32",
            {"config_groups": {"g": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 4, "group_size": 32}}}},
        ),
        ("gptq-w4g32", {"dynamic": {r"-:.*layers\.0\.mlp\.down_proj": {}}}),
        ("gptq-w4g32", {"modules_to_not_convert": ["q_proj"]}),
        ("gptq-w4g32", {"modules_in_block_to_quantize": [["mlp.up_proj"]]}),
        ("awq-w4g32", {"modules_to_not_convert": ["model.layers.0"]}),
        ("bnb-nf4-double", {"llm_int8_skip_modules": ["lm_head", "self_attn"]}),
        ("fp8-block", {"modules_to_not_convert": ["model.layers.*.mlp"]}),
        ("hqq-w4g32", {"quant_method": "hqq", "skip_modules": ["down_proj"]}),
        ("awq-w4g32", {"modules_to_not_convert": ["model.layers.0.mlp.down.proj"]}),
        ("ct-w4g32", {"ignore": ["Linear"]}),
        ("gptq-w4g32", {"dynamic": {r"-:.*(?<!o_)proj$": {}}}),
        ("gptq-w4g32-desc", {"desc_act": False}),
    ],
)
def test_a_config_may_not_leave_out_what_is_packed(
    changed: Callable[..., Path], name: str, said: dict[str, Any]
) -> None:
    """A loader would fill these modules with random numbers, or read their groups in another order."""
    folder = changed(name, config={"quantization_config": quantization(ARTIFACTS, name) | said})
    with pytest.raises(ArtifactError, match=r"config\.json of .* claims"):
        inspect(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ct-w4g32", {"ignore": ["lm_head", "re:.*embed.*"]}),
        ("ct-w4g32", {"ignore": ["lm_head", "re:.*(q|k)_norm$", "model.layers.00"]}),
        ("ct-w4g32", {"ignore": ["re:([a-z0-9._]+)+!$", "re:" + "(.*)*" * 9 + "!"]}),
        ("gptq-w4g32", {"desc_act": False, "modules_to_not_convert": ["lm_head", "gate"]}),
        ("gptq-w4g32", {"dynamic": {r"-:.*layers\.7\..*": {}}, "modules_to_not_convert": None}),
        ("bnb-nf4-double", {"llm_int8_skip_modules": ["lm_head", "visual"]}),
    ],
)
def test_a_config_may_leave_out_what_is_not(changed: Callable[..., Path], name: str, said: dict[str, Any]) -> None:
    folder = changed(name, config={"quantization_config": quantization(ARTIFACTS, name) | said})
    assert inspect(folder).quantization.layers == inspect(ARTIFACTS / name).quantization.layers


@pytest.mark.parametrize("pattern", [r"(m)odel.*|\1", "(?i)MODEL.*", "(?:" * 40 + "model" + ")" * 40])
def test_a_pattern_that_nobody_follows_leaves_it_open(changed: Callable[..., Path], pattern: str) -> None:
    said = quantization(ARTIFACTS, "ct-w4g32") | {"ignore": [f"re:{pattern}"]}
    with pytest.raises(ArtifactError, match="not run here"):
        inspect(changed("ct-w4g32", config={"quantization_config": said}))


@pytest.mark.parametrize(
    "other", [{"checkpoint_format": "gptq_v2"}, {"bits": 8}, {"group_size": 64}, {"sym": False}, {"desc_act": True}]
)
def test_two_configs_must_agree(changed: Callable[..., Path], other: dict[str, Any]) -> None:
    """transformers reads config.json first, gptqmodel its own file."""
    folder = changed("gptq-w4g32")
    own = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": own}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "quantize_config.json").write_text(json.dumps(own | {"checkpoint_format": "gptq"}))
    inspect(folder)
    (folder / "quantize_config.json").write_text(json.dumps(own | other))
    with pytest.raises(ArtifactError, match=r"config\.json of .*quantize_config\.json says"):
        inspect(folder)


PATTERNS = st.lists(st.sampled_from(["a", "b", r"\.", ".", ".*", "a+?", "[ab]", "[^a]", "(a|b)", "(?:ab)?", r"\d", "b{1,2}", "$",
                                     "^", "(?!b)", "(?=a)", "(?<=a)", "(?<!b)", "|", r"\b"]), max_size=6).map("".join)  # fmt: skip


@given(pattern=PATTERNS, name=st.text("ab.1", max_size=8))
def test_patterns_match_as_pythons_do(pattern: str, name: str) -> None:
    assert matches_from_start(pattern, name) == bool(re.match(pattern, name))


def test_a_config_does_not_contradict_itself(changed: Callable[..., Path]) -> None:
    """Some tools read the one key, some the other, of the same file."""
    said = quantization(ARTIFACTS, "gptq-w4g32") | {"checkpoint_format": "gptq", "format": "gptq_v2"}
    with pytest.raises(ArtifactError, match=r"checkpoint format 'gptq'.*'gptq_v2'"):
        inspect(changed("gptq-w4g32", config={"quantization_config": said}))


def test_a_hostile_pattern_takes_no_time() -> None:
    assert matches_from_start("(a*)*" * 20 + "b$", "a" * 200) is False
    assert matches_from_start("(((a{50}){50}){50}){50}", "a" * 200) in {None, False}
    assert matches_from_start("(?=(?=(?=(?=.*b).*b).*b).*b)" * 9, "a" * 999) is not True
    assert matches_from_start(r"(a)\1", "aa") is None
    assert matches_from_start("(" * 500, "a") is None
