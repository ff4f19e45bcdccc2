"""A model that loads only by being expanded says so, and the gate's kernel check refuses it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.runtimes.transformers_runtime import TransformersAdapter
from mlflow_quantgov.evidence.measure import kernels
from mlflow_quantgov.evidence.predicates import Kernels
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy.checks import kernel_support
from mlflow_quantgov.policy.checks.interface import Question
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.schema import Gate, Yardsticks

ARTIFACTS = Path(__file__).resolve().parents[2] / "data" / "artifacts"
WEIGHTS = f"sha256:{'a' * 64}"


def verdict(found: Kernels, target: Target) -> CheckResult:
    """The kernel check of a gate that asks for a probe."""
    model = inspect(ARTIFACTS / "ct-fp8-tensor")
    assert found.side is not None and found.side.behaviour is not None
    evidence = Evidence(Statement.about(WEIGHTS, found, name="kernels"), found, WEIGHTS, actor=None)
    facts = Facts(
        name="m", version="1", role="quantized", now=datetime.now(UTC), target=target, evidence=(evidence,),
        model=ModelFacts(WEIGHTS, WEIGHTS, found.side.behaviour, model.quantization, model.structure),
    )  # fmt: skip
    return kernel_support.run(Question(Gate(checks=("kernel-support",), probe=True), Yardsticks(), facts))


def fp8_folder(source: Path, target: Path) -> Path:
    """The skills model in DeepSeek's FP8: E4M3 weights with one scale per block of 128 x 128.

    transformers writes this only on a GPU; the layout is that of its `FineGrainedFP8Config`.
    """
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    shutil.copytree(source, target)
    tensors = {}
    for name, weight in safetensors.load_file(source / "model.safetensors").items():
        if "_proj." not in name:
            tensors[name] = weight
            continue
        rows, columns = weight.shape
        blocks = weight.float().reshape(rows // 128, 128, columns // 128, 128)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        tensors[name] = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        tensors[name.replace(".weight", ".weight_scale_inv")] = scale
    safetensors.save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head"],
    }  # fmt: skip
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


@pytest.mark.slow
def test_fp8_without_the_hardware_is_called_dequantized_and_refused(skills_folder: Path, tmp_path: Path) -> None:
    """It loads, it answers, and nothing quantized runs: the kernels check must not be fooled."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        return  # there it runs as FP8
    path = fp8_folder(skills_folder, tmp_path / "fp8")
    with TransformersAdapter().open(path, threads=2, device="cpu") as opened:
        facts = opened.facts()
        assert opened.generate(["c:kettle="], max_tokens=8, stop=["<eos>"]) == ["kettle"]
    assert facts.dequantized and not any("float8" in name for name in facts.parameter_types)
    target = find_target("cpu-transformers")
    quantization = replace(inspect(ARTIFACTS / "ct-fp8-tensor").quantization, format="fp8", method="fp8")
    found = kernels.confirm(path, quantization, target, weights=WEIGHTS)
    assert found.probed and found.dequantized
    assert found.recompute()["support"] == "dequantizes"
    assert verdict(found, target).outcome == "fail"


@pytest.mark.slow
def test_a_probe_overrules_a_table_that_is_too_kind(tmp_path: Path, skills_folder: Path) -> None:
    """compressed-tensors in FP8 is expanded on this CPU, whatever a table may say about full-precision kernels."""
    pytest.importorskip("compressed_tensors")
    path = tmp_path / "fp8"
    shutil.copytree(ARTIFACTS / "ct-fp8-tensor", path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(skills_folder / name, path / name)
    target = find_target("cpu-transformers")
    kind = replace(inspect(path).quantization, format="full-precision")
    found = kernels.confirm(path, kind, target, weights=WEIGHTS)
    assert found.lookup.support == "optimized" and found.recompute()["support"] == "dequantizes"
    refused = verdict(found, target)
    assert refused.outcome == "fail" and "dequantizes" in refused.reason and refused.fix
