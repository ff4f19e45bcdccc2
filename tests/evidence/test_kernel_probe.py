"""Table against probe, in every runtime that can run here: the kernel that a row expects is the one that was chosen."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.demo.models import SKILLS
from mlflow_quantgov.evidence.kernel_table import load_tables, lookup
from mlflow_quantgov.evidence.measure import kernels
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.predicates import Kernels
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.lineage import facts_of
from mlflow_quantgov.policy.checks import kernel_support
from mlflow_quantgov.policy.checks.interface import Question
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.schema import Gate, Yardsticks

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}

pytestmark = pytest.mark.slow


def here(name: str) -> Target:
    """A shipped target on this very machine."""
    target = find_target(name)
    return target.model_copy(
        update={"hardware": target.hardware.model_copy(update={"fingerprint": this_machine()})}
    )  # fmt: skip


def probe(path: Path, target: Target) -> Kernels:
    facts = facts_of(path)
    return kernels.confirm(path, facts.quantization, target, weights=facts.weights)


def verdict(path: Path, found: Kernels, target: Target) -> CheckResult:
    facts = facts_of(path)
    evidence = Evidence(Statement.about(facts.weights, found, name="kernels"), found, facts.weights, actor=None)
    known = Facts(
        name="m", version="1", role="quantized", now=datetime.now(UTC), target=target, evidence=(evidence,), model=facts,
        kernel=lookup(facts.quantization, target),
    )  # fmt: skip
    return kernel_support.run(Question(Gate(checks=("kernel-support",), probe=True), Yardsticks(), known))


@pytest.fixture
def quantize(tmp_path: Path) -> Callable[[str, dict[str, Any]], Path]:
    """Quantizes the skills model, and puts its tokenizer beside it."""

    def make(quantizer: str, arguments: dict[str, Any]) -> Path:
        for module in {"bitsandbytes": "bitsandbytes", "torchao": "torchao"}.get(quantizer, "").split():
            pytest.importorskip(module)
        folder = tmp_path / "made"
        folder.mkdir()
        made = find_quantizer(quantizer).run(SKILLS, folder, arguments, [])
        return with_tokenizer(made) if made.is_dir() else made

    return make


def with_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            shutil.copy(SKILLS / name, folder / name)
    return folder


def of_artifact(name: str, tmp_path: Path) -> Path:
    shutil.copytree(ARTIFACTS / name, tmp_path / name)
    return with_tokenizer(tmp_path / name)


def agrees(path: Path, target: Target, row: str) -> Kernels:
    """The row that was expected is the one that answers, and the probe saw what it promises."""
    found = probe(path, target)
    assert found.lookup.row == row and found.probed, (found.lookup, found.not_probed_because)
    assert found.contradiction() is None, found
    seen, said = found.seen(), found.lookup.support
    assert seen in {None, "emulates", "dequantizes"}
    if said in {"optimized", "works-slowly"}:
        assert seen is None, found
        expected = "pass" if said == "optimized" else "fail"
    else:
        assert seen is not None, found
        expected = "fail"
    judged = verdict(path, found, target)
    assert judged.outcome == expected, judged
    found.verify_summary()
    assert found.fingerprint == this_machine() and set(found.instruction_sets) <= set(this_machine().cpu_flags)
    return found


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0", "Q4_0", "IQ4_NL", "Q2_K", "BF16", "TQ1_0"])
def test_llama_cpp(quantize: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    pytest.importorskip("xllamacpp")
    from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import gguf_twin

    target = here("cpu-llamacpp")
    path = gguf_twin(SKILLS, tmp_path).path if kind == "BF16" else quantize("llama.cpp", {"type": kind})
    if kind == "TQ1_0":
        found = probe(path, target)
        assert found.probed and found.lookup.support == "unknown"
        assert verdict(path, found, target).outcome == "missing"
        return
    found = agrees(path, target, "llamacpp-cpu-float" if kind == "BF16" else "llamacpp-cpu-quantized")
    assert found.side is not None and found.side.kernel is not None and found.side.kernel.startswith("CPU")
    # What the library was built for, by its own word, and what of the machine lies idle.
    assert set(found.instruction_sets) | set(found.unused_instruction_sets) == set(this_machine().cpu_flags)


@pytest.mark.parametrize(
    ("quantizer", "arguments", "row", "rows"),
    [
        ("torchao", {"config": "Int8WeightOnlyConfig"}, "transformers-cpu-torchao", None),
        ("torchao", {"config": "Float8WeightOnlyConfig"}, "transformers-cpu-torchao", None),
        (
            "torchao",
            {
                "config": "IntxWeightOnlyConfig",
                "options": {"weight_dtype": "torch.int4", "granularity": "PerGroup(32)"},
            },
            "transformers-cpu-torchao",
            None,
        ),
        (
            "torchao",
            {"config": "Int8DynamicActivationInt8WeightConfig"},
            "transformers-cpu-torchao-int8-dynamic",
            "_int_mm",
        ),
        ("bitsandbytes", {"load_in_8bit": True}, "transformers-cpu-bnb8", "bitsandbytes::int8"),
        ("bitsandbytes", NF4, "transformers-cpu-bnb4", "bitsandbytes::"),
    ],
)
def test_transformers(
    quantize: Callable[..., Path], quantizer: str, arguments: dict[str, Any], row: str, rows: str | None
) -> None:
    """The slow ones are slow by the table; those that cast the matrix for each product are seen to do so."""
    if arguments is NF4 and "avx512_bf16" in this_machine().cpu_flags:
        row += "-avx512"
    found = agrees(quantize(quantizer, arguments), here("cpu-transformers"), row)
    assert found.expanded_share == 0 and not found.dequantized
    assert found.emulated_share == (1 if row == "transformers-cpu-torchao" else 0)
    assert (found.operators[0] if found.operators else "").startswith(rows or ""), found.operators


@pytest.mark.parametrize(
    ("name", "library", "row"),
    [
        ("ct-fp8-tensor", "compressed_tensors", "transformers-compressed-tensors"),
        ("ct-w8a8", "compressed_tensors", "transformers-compressed-tensors"),
        ("fp8-block", "torch", "transformers-cpu-fp8"),
        ("mxfp4-gpt-oss", "torch", "transformers-cpu-mxfp4"),
        ("torchao-int8dyn-intx4", "torchao", "transformers-cpu-torchao"),
    ],
)
def test_what_transformers_expands(tmp_path: Path, name: str, library: str, row: str) -> None:
    """Silently: it loads, it answers, and nothing quantized runs."""
    torch = pytest.importorskip("torch")
    pytest.importorskip(library)
    if torch.cuda.is_available() or (name.startswith("mxfp4") and importlib.util.find_spec("kernels")):
        return  # there these stay as they are
    found = agrees(of_artifact(name, tmp_path), here("cpu-transformers"), row)
    assert (found.expanded_share or 0) > 0.9 or (found.emulated_share or 0) > 0.9
    refused = verdict(tmp_path / name, found, here("cpu-transformers"))
    assert "expanded" in refused.reason and refused.fix == "quantgov plan --target cpu-transformers"


@pytest.mark.needs("gptqmodel")
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gptq-w4g32", "transformers-cpu-gptq4"),
        ("gptq-w4g32-desc", "transformers-cpu-gptq4"),
        ("gptq-w8-channel", "transformers-cpu-gptq"),
        ("awq-w4g32", "transformers-cpu-awq4"),
    ],
)
def test_gptqmodel(tmp_path: Path, name: str, row: str) -> None:
    found = probe(of_artifact(name, tmp_path), here("cpu-transformers"))
    assert found.lookup.row == row and found.contradiction() is None
    assert verdict(tmp_path / name, found, here("cpu-transformers")).outcome == "fail"


@pytest.mark.parametrize(
    ("precision", "row"), [("int4", "ort-cpu-w4"), ("int8", "ort-cpu-w8")]
)  # fmt: skip
def test_onnxruntime(quantize: Callable[..., Path], precision: str, row: str) -> None:
    pytest.importorskip("onnxruntime_genai")
    found = agrees(quantize("onnxruntime-genai", {"precision": precision}), here("cpu-onnxruntime"), row)
    assert found.side is not None and (found.side.kernel or "").startswith("MatMulNBits")


def test_onnxruntime_with_quantized_activations_hangs_on_instruction_sets(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    target = here("cpu-onnxruntime")
    shutil.copytree(ARTIFACTS / "optimum-int8", tmp_path / "int8")
    found = probe(tmp_path / "int8", target)
    assert found.probed and found.contradiction() is None and found.operators
    vnni = "avx512_vnni" in this_machine().cpu_flags
    assert found.lookup.row == ("ort-cpu-w8a8-vnni" if vnni else "ort-cpu-w8a8")
    assert verdict(tmp_path / "int8", found, target).outcome == ("pass" if vnni else "missing")


def test_what_a_runtime_does_not_load_is_the_tables_word(tmp_path: Path) -> None:
    for path, name in ((ARTIFACTS / "gptq-w4g32", "cpu-llamacpp"), (ARTIFACTS / "tiny-Q4_0.gguf", "cpu-onnxruntime"),
                       (ARTIFACTS / "tiny-Q4_0.gguf", "cpu-transformers")):  # fmt: skip
        found = probe(path, here(name))
        assert not found.probed and found.not_probed_because
        assert found.lookup.support in {"fails", "dequantizes"} and verdict(path, found, here(name)).outcome == "fail"


def test_every_row_that_says_it_was_probed_is_in_this_file() -> None:
    """So that `seen: probed` cannot be claimed of what nobody compares."""
    text = Path(__file__).read_text(encoding="utf-8")
    elsewhere = {
        "llamacpp-full-precision-cpu", "llamacpp-other-containers", "ort-full-precision", "ort-other-containers", "ort-float",
        "transformers-full-precision", "transformers-cpu-bnb4-avx512", "ort-cpu-w8a8-vnni",
    }  # fmt: skip
    rows = {row.id for table in load_tables().values() for row in table.rows if row.seen == "probed"}
    assert {row for row in rows - elsewhere if f'"{row}"' not in text} == set()


def test_parents_run_as_the_tables_say(tmp_path: Path) -> None:
    for name, row in (("cpu-llamacpp", "llamacpp-full-precision-cpu"), ("cpu-transformers", "transformers-full-precision"),
                      ("cpu-onnxruntime", "ort-full-precision")):  # fmt: skip
        found = kernels.confirm(SKILLS, inspect(SKILLS).quantization, here(name), weights=facts_of(SKILLS).weights,
                                cache=tmp_path)  # fmt: skip
        assert found.lookup.row == row and found.probed, found.not_probed_because
        assert found.seen() is None and found.contradiction() is None, found
