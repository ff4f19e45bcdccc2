"""Recipes are read strictly, and a quantizer takes only what it knows."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quantizers.recipe import Recipe, read_recipe
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer, quantizer_names
from mlflow_quantgov.errors import MissingExtraError, PolicyError, UsageError
from mlflow_quantgov.evidence.measure.reproduction import quantize

DIGEST = "sha256:" + "a" * 64
NAMES = ["bitsandbytes", "gptqmodel", "llama.cpp", "llmcompressor", "onnxruntime-genai", "torchao"]
CPU_RECIPES = [
    ("llama.cpp", {"type": "Q4_K"}, "gguf", 4),
    ("llama.cpp", {"type": "Q8_0", "source_type": "F32"}, "gguf", 8),
    ("bitsandbytes", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "dtype": "bfloat16"}, "bitsandbytes", 4),
    ("torchao", {"config": "Int8WeightOnlyConfig"}, "torchao", 8),
    (
        "torchao",
        {"config": "IntxWeightOnlyConfig", "options": {"weight_dtype": "torch.int4", "granularity": "PerGroup(32)"}},
        "torchao",
        4,
    ),
    ("onnxruntime-genai", {"precision": "int4", "int4_block_size": 32}, "onnx", 4),
]


def test_a_recipe_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"quantizer: gptqmodel\nversion: 7.6.0\narguments: {{bits: 4, sym: true}}\ncalibration: {DIGEST}\n")
    assert read_recipe(path) == Recipe(
        quantizer="gptqmodel", version="7.6.0", arguments={"bits": 4, "sym": True}, calibration=DIGEST
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quantizer: gptqmodel\nversoin: 7\n", "did you mean 'version'"),
        ("quantizer: gptqmodel\n", "version"),
        ("quantizer: gptqmodel\nversion: '7'\ncalibration: calib.jsonl\n", "calibration"),
        ("- a list", "recipe.yaml"),
        ("a: &x [1]\nb: *x\n", "aliases"),
    ],
)
def test_a_recipe_with_a_mistake_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=said):
        read_recipe(path)


@pytest.mark.parametrize("text", ["quantizer: gptqmodel\nversoin: 7\n", "- a list", "a: &x [1]\nb: *x\n", None])
def test_help_with_a_recipe_is_about_recipes(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_recipe(path)
    assert "quantgov schema recipe" in caught.value.fix and "policy" not in caught.value.one_line()
    assert "ecipe" in caught.value.why


@pytest.mark.parametrize("key", ["quantizer", "x" * 1000])
def test_long_values_of_a_recipe_are_cut(tmp_path: Path, key: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{key}: {'y' * 5000}\n")
    with pytest.raises(PolicyError) as caught:
        read_recipe(path)
    assert len(caught.value.one_line()) < 600


def test_every_quantizer_is_found_by_name() -> None:
    assert [find_quantizer(name).name for name in quantizer_names()] == quantizer_names() == NAMES
    with pytest.raises(UsageError, match="No quantizer 'gtpqmodel'") as caught:
        find_quantizer("gtpqmodel")
    assert "gptqmodel" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "arguments", "texts", "said"),
    [
        ("llama.cpp", {"typ": "Q8_0"}, False, "takes no argument 'typ'"),
        ("llama.cpp", {"type": 8}, False, "type = 8 is no str"),
        ("llama.cpp", {"source_type": "F99"}, False, "source_type = 'F99' is none of auto, BF16, F16, F32"),
        ("llama.cpp", {}, True, "sees no texts"),
        ("gptqmodel", {"bits": 4}, False, "calibrates on texts"),
        ("gptqmodel", {"bits": True}, True, "bits = True is no int"),
        ("bitsandbytes", {"load_in_4bit": 1}, False, "load_in_4bit = 1 is no bool"),
    ],
)
def test_arguments_are_checked_before_anything_runs(name: str, arguments: dict, texts: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_quantizer(name).check(arguments, has_texts=texts)


@pytest.mark.parametrize("arguments", [{"x" * 5000: 1}, {"type": ["y z"] * 5000}, {"source_type": "z " * 5000}])
def test_long_arguments_are_cut(arguments: dict) -> None:
    with pytest.raises(UsageError) as caught:
        find_quantizer("llama.cpp").check(arguments, has_texts=False)
    assert len(caught.value.one_line()) < 500


def test_a_quantizer_that_is_not_installed_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r"mlflow-quantgov\[gptq\]"):
        find_quantizer("gptqmodel").version()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "format", "bits"), CPU_RECIPES)
def test_what_a_recipe_makes_is_what_it_says(
    skills: Path, tmp_path: Path, name: str, arguments: dict, format: str, bits: int
) -> None:
    recipe = Recipe(quantizer=name, version=find_quantizer(name).version(), arguments=arguments)
    made = quantize(skills, tmp_path / "made", recipe)
    facts = inspect_model(made).quantization
    assert (facts.format, facts.bits) == (format, bits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": "os"}, "no configuration 'os'"),
        ({"config": "Int8WeightOnlyConfig", "options": {"nonsense": 1}}, "refuses its options"),
        ({"config": "Int8WeightOnlyConfig", "dtype": "nonsense"}, "no type 'nonsense'"),
    ],
)
def test_torchao_looks_up_nothing_but_its_own_configurations(
    skills: Path, tmp_path: Path, arguments: dict, said: str
) -> None:
    recipe = Recipe(quantizer="torchao", version=find_quantizer("torchao").version(), arguments=arguments)
    with pytest.raises(UsageError, match=said):
        quantize(skills, tmp_path / "made", recipe)
    assert not list(tmp_path.iterdir())
