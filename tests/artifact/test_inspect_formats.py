"""What each real artifact is, read from its bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.artifact.settings import differences
from mlflow_quantgov.artifact.tensors import open_safetensors, read_safetensors, write_safetensors

LINEAR = 30720
ALL = 47296

EXPECTED: dict[str, dict[str, Any]] = {
    "gptq-w4g32": {
        "format": "gptq",
        "bits": 4,
        "group_size": 32,
        "symmetric": True,
        "desc_act": False,
        "method": "gptq",
    },
    "gptq-w4g32-desc": {"format": "gptq", "bits": 4, "group_size": 32, "symmetric": True, "desc_act": True},
    "gptq-w3g32-asym": {"format": "gptq", "bits": 3, "group_size": 32, "symmetric": False, "desc_act": False},
    "gptq-w2g16-v2": {"format": "gptq", "bits": 2, "group_size": 16, "symmetric": True},
    "gptq-w8-channel": {"format": "gptq", "bits": 8, "group_size": None, "granularity": "channel", "symmetric": True},
    "awq-w4g32": {"format": "awq", "bits": 4, "group_size": 32, "symmetric": False, "method": "awq"},
    "ct-w4g32": {"format": "compressed-tensors", "bits": 4, "group_size": 32, "symmetric": True, "method": None},
    "ct-w4g32-asym": {"format": "compressed-tensors", "bits": 4, "group_size": 32, "symmetric": False},
    "ct-w3-channel": {"format": "compressed-tensors", "bits": 3, "granularity": "channel", "activation_bits": None},
    "ct-w8a8": {"format": "compressed-tensors", "bits": 8, "granularity": "channel", "activation_bits": 8},
    "ct-fp8-tensor": {"format": "compressed-tensors", "bits": 8, "granularity": "tensor", "activation_bits": 8},
    "bnb-nf4-double": {"format": "bitsandbytes", "bits": 4, "group_size": 64, "method": "nf4", "activation_bits": None},
    "bnb-fp4": {"format": "bitsandbytes", "bits": 4, "group_size": 64, "method": "fp4"},
    "bnb-int8": {"format": "bitsandbytes", "bits": 8, "granularity": "channel", "method": "int8", "activation_bits": 8},
    "torchao-int8wo": {"format": "torchao", "bits": 8, "granularity": "channel", "activation_bits": None},
    "torchao-int8dyn": {"format": "torchao", "bits": 8, "granularity": "channel", "activation_bits": 8},
    "torchao-int4g32": {"format": "torchao", "bits": 4, "group_size": 32, "symmetric": True},
    "torchao-float8wo": {"format": "torchao", "bits": 8, "granularity": "channel"},
}
CALIBRATED = {"gptq": True, "awq": True, "compressed-tensors": None, "bitsandbytes": False, "torchao": False}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_facts_of_a_quantized_folder(artifacts: Path, name: str) -> None:
    found = inspect(artifacts / name)
    facts = found.quantization
    assert {key: getattr(facts, key) for key in EXPECTED[name]} == EXPECTED[name]
    assert (facts.quantized_parameters, facts.total_parameters) == (LINEAR, ALL)
    assert facts.is_quantized
    assert facts.calibration_required is CALIBRATED[facts.format]
    assert len(facts.layers) == 7
    assert found.is_language_model


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_bits_per_weight_counts_every_stored_bit(artifacts: Path, name: str) -> None:
    stored = sum(one.size for one in open_safetensors(artifacts / name / "model.safetensors").tensors.values())
    facts = inspect(artifacts / name).quantization
    assert facts.bits_per_weight == pytest.approx(8 * stored / ALL)
    assert facts.size_bytes == sum(path.stat().st_size for path in (artifacts / name).iterdir())


@pytest.mark.parametrize("name", [*sorted(EXPECTED), "tiny-Q8_0.gguf", "tiny-Q4_0.gguf", "tiny-F16.gguf"])
def test_structure_is_the_parents(artifacts: Path, name: str) -> None:
    found, parent = inspect(artifacts / name).structure, inspect(artifacts / "parent-bf16").structure
    assert replace(found, settings=parent.settings) == parent
    assert differences(found.settings, parent.settings) == []


@pytest.mark.parametrize("name", ["parent-bf16", "parent-sharded"])
def test_full_precision(artifacts: Path, name: str) -> None:
    facts = inspect(artifacts / name).quantization
    assert (facts.format, facts.bits, facts.method, facts.dtype) == ("full-precision", None, None, "bfloat16")
    assert (facts.bits_per_weight, facts.quantized_parameters, facts.total_parameters) == (16.0, 0, ALL)
    assert facts.warnings == ()
    assert not facts.is_quantized


def test_weights_written_back_as_floats_are_noticed(artifacts: Path) -> None:
    assert inspect(artifacts / "dequantized-bf16").quantization.warnings == ("on-k-bit-grid",)


@pytest.mark.parametrize(
    ("name", "method", "bits", "symmetric"),
    [("Q8_0", "Q8_0", 8, True), ("Q4_0", "Q4_0", 4, True), ("Q4_1", "Q4_1", 4, False)],
)
def test_quantized_gguf(artifacts: Path, name: str, method: str, bits: int, symmetric: bool) -> None:
    facts = inspect(artifacts / f"tiny-{name}.gguf").quantization
    assert (facts.format, facts.method, facts.bits, facts.symmetric) == ("gguf", method, bits, symmetric)
    assert (facts.group_size, facts.granularity, facts.calibration_required) == (32, "group", False)
    assert {layer.type for layer in facts.layers} == {method}


@pytest.mark.parametrize(("name", "dtype"), [("F16", "float16"), ("BF16", "bfloat16")])
def test_unquantized_gguf(artifacts: Path, name: str, dtype: str) -> None:
    facts = inspect(artifacts / f"tiny-{name}.gguf").quantization
    assert (facts.format, facts.method, facts.bits, facts.dtype) == ("gguf", name, None, dtype)
    assert not facts.is_quantized
    assert facts.warnings == ()


def test_json_round_trip(artifacts: Path) -> None:
    facts = inspect(artifacts / "gptq-w4g32").quantization
    assert Quantization.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_an_output_matrix_that_repeats_the_embedding_counts_once(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tied"
    shutil.copytree(artifacts / "parent-bf16", folder)
    tensors = dict(read_safetensors(folder / "model.safetensors"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_safetensors(folder / "model.safetensors", {name: np.array(one) for name, one in tensors.items()})
    assert inspect(folder).quantization.total_parameters == ALL - 128 * 64


def test_a_gptq_layer_without_index_takes_its_group_size_from_shapes(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no-index"
    shutil.copytree(artifacts / "gptq-w4g32", folder)
    tensors = {k: np.array(v) for k, v in read_safetensors(folder / "model.safetensors") if not k.endswith("g_idx")}
    write_safetensors(folder / "model.safetensors", tensors)
    facts = inspect(folder).quantization
    assert (facts.format, facts.bits, facts.group_size, facts.desc_act) == ("gptq", 4, 32, False)


def test_inspection_needs_no_heavy_library(artifacts: Path) -> None:
    code = (
        "import sys\nfrom mlflow_quantgov.artifact.inspect import inspect\n"
        f"inspect({str(artifacts / 'gptq-w4g32')!r})\n"
        "print([one for one in ('torch', 'mlflow', 'transformers', 'pydantic', 'gguf') if one in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


BERT = {"model_type": "bert"}


@pytest.mark.parametrize(
    ("config", "tensor", "is_one"),
    [
        ({"architectures": ["ChatGLMModel"]}, "transformer.embedding.word_embeddings.weight", True),
        ({"architectures": ["OwnModel"], "auto_map": {"AutoModelForCausalLM": "own.OwnModel"}}, "e.weight", True),
        ({"architectures": ["OwnModel"]}, "lm_head.weight", True),
        ({"architectures": ["OwnForSequenceClassification"]}, "classifier.weight", True),
        (BERT | {"architectures": ["BertModel"]}, "embeddings.word_embeddings.weight", False),
        (BERT | {"architectures": ["BertForSequenceClassification"], "auto_map": []}, "classifier.weight", False),
        (BERT | {"architectures": ["BertForMaskedLM"]}, "cls.predictions.bias", False),
        (BERT | {"architectures": ["BertForMaskedLM"], "is_decoder": True}, "cls.predictions.bias", True),
        (BERT, "cls.predictions.bias", True),
        (BERT | {"architectures": ["BertLMHeadModel"]}, "cls.predictions.bias", True),
        (BERT | {"architectures": ["BertModel"], "auto_map": {"AutoModel": "own.Own"}}, "embeddings.weight", True),
        (BERT | {"architectures": ["BertModel", "BertGenerationDecoder"]}, "embeddings.weight", True),
        ({"architectures": ["ViTForImageClassification"], "model_type": "vit"}, "classifier.weight", False),
        ({"model_type": "bloom"}, "transformer.word_embeddings.weight", True),
        ({"model_type": "falcon"}, "transformer.word_embeddings.weight", True),
        ({"model_type": "mamba"}, "backbone.embeddings.weight", True),
        ({"model_type": "gpt_neox"}, "gpt_neox.embed_in.weight", True),
        (BERT | {"architectures": ["BertModel"]}, "transformer.h.0.self_attention.query_key_value.weight", True),
        (BERT | {"architectures": ["BertModel"]}, "gpt_neox.embed_in.weight", True),
        ({"model_type": ["bert"]}, "e.weight", True),
    ],
)
def test_a_language_model_by_any_name(config: dict[str, Any], tensor: str, is_one: bool, tmp_path: Path) -> None:
    """One whose class says nothing of language would count as a model of another kind, which nobody has to measure."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own"} | config))
    save_file({tensor: np.zeros((8, 4), np.float32)}, tmp_path / "model.safetensors")
    assert inspect(tmp_path).is_language_model is is_one
