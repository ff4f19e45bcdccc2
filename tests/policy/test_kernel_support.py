"""The kernel check: what the probe saw, what the table says, and where the two contradict each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from releases import (
    FAST,
    MACHINE,
    MODEL,
    PARENT,
    SLOW,
    benchmark,
    benchmark_alone,
    benchmark_v1,
    contents,
    digest,
    facts_of,
    kernels,
    provenance,
    quantization,
    side,
    target,
    timed,
    tried,
)

from mlflow_quantgov.evidence.kernel_table import NO_TABLE, lookup
from mlflow_quantgov.evidence.predicates import Kernels, Lookup, Predicate
from mlflow_quantgov.evidence.targets import find_target
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.loader import load_policy

TABLE = {"runtime": "llama.cpp", "support": "optimized", "row": "a-row", "source": "its source", "kernel": "the kernel"}


def row(**changes: Any) -> Lookup:
    return Lookup.model_validate(TABLE | changes)


def judged(found: Kernels, table: Lookup | None = None, **changes: Any) -> CheckResult:
    facts = facts_of([found if isinstance(one, Kernels) else one for one in contents()], kernel=table or row())
    decision = decide(load_policy(), replace(facts, **changes), "@champion")
    return next(one for one in decision.checks if one.check == "kernel-support")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dequantized": True}, "dequantizes: the quantized weights were expanded on loading"),
        ({"expanded_share": 0.25}, "dequantizes: 25% of the quantized weights"),
        ({"emulated_share": 1.0}, "emulates: the quantized weights were expanded again for every product"),
        ({"emulated_share": 0.5}, "emulates: 50% of the quantized weights"),
        ({"side": side(MODEL, kernel="EmulationNvFp4LinearKernel")}, "emulates"),
    ],
)
def test_what_the_probe_saw_overrules_a_table_that_is_too_kind(changes: dict[str, Any], words: str) -> None:
    found = judged(kernels(**changes))
    assert found.outcome == "fail" and words in found.reason and "the table says optimized (a-row)" in found.reason
    assert found.fix == "quantgov plan --target mine"


def test_rounding_of_bytes_is_no_expansion() -> None:
    assert judged(kernels(expanded_share=0.004, emulated_share=0.0)).outcome == "pass"


@pytest.mark.parametrize("support", ["works-slowly", "emulates", "dequantizes", "fails"])
def test_a_table_that_says_no_refuses_and_names_row_source_and_probe(support: str) -> None:
    found = judged(kernels(), row(support=support, share=0.25))
    assert found.outcome == "fail"
    for words in ("25% of the weights", "a-row: its source", "the probe saw CPU_REPACK"):
        assert words in found.reason


def test_another_kernel_than_the_table_promises_is_not_a_pass() -> None:
    table = row(expects=("MatMulNBits*", "QGemm*"))
    found = judged(kernels(), table)
    assert found.outcome == "missing"
    assert "the table (a-row) expects MatMulNBits* or QGemm*, the runtime chose CPU_REPACK" in found.reason
    assert judged(kernels(operators=("QGemm",)), table).outcome == "pass"
    assert judged(kernels(), row(expects=("CPU*",))).outcome == "pass"


@pytest.mark.parametrize(
    ("depends_on", "fix"),
    [
        (("cpu_flags",), "quantgov targets capture mine"),
        (("cpu_flags",), "; quantgov log PATH --target mine.yaml"),
        (("runtime_version",), "state runtime_version in mine.yaml"),
        (("compute_capability",), "state compute_capability under hardware in mine.yaml"),
    ],
)
def test_what_is_not_known_is_missing_and_says_what_settles_it(depends_on: tuple[str, ...], fix: str) -> None:
    found = judged(kernels(), row(support="unknown", depends_on=depends_on))
    assert found.outcome == "missing" and found.reason.startswith("Not measured:") and fix in found.fix


def by_clock(table: Lookup, *measured: Predicate, **probe: Any) -> CheckResult:
    others = [one for one in contents() if one.KIND not in {"kernels", "benchmark"}]
    decision = decide(load_policy(), facts_of([*others, kernels(**probe), *measured], kernel=table), "@champion")
    return next(one for one in decision.checks if one.check == "kernel-support")


def test_where_no_source_says_it_the_clock_on_the_target_may() -> None:
    """Not slower than the parent, in the kernel that the probe saw, on the hardware that serves."""
    unknown = row(support="unknown")
    found = by_clock(unknown, benchmark())
    assert found.outcome == "pass" and "no slower than its parent: 20 against 10 tokens/s" in found.reason
    assert len(found.evidence) == 2
    untimed = by_clock(unknown)
    assert (
        untimed.outcome == "missing"
        and untimed.fix == "quantgov kernels models:/chat/2; quantgov benchmark models:/chat/2"
    )
    slow = by_clock(unknown, benchmark(loads=(timed(FAST, SLOW),), parent_tries=(tried(FAST),)))
    assert slow.outcome == "fail" and "timed on the target it is slower than its parent" in slow.reason
    assert slow.fix == "quantgov plan --target mine"
    few = by_clock(unknown, benchmark(loads=(timed(rounds=6),)))
    assert few.outcome == "inconclusive" and "6 rounds are too few" in few.reason


@pytest.mark.parametrize(
    ("table", "measured", "probe"),
    [
        ({}, benchmark(fingerprint=MACHINE.model_copy(update={"cores": 4})), {}),
        ({}, benchmark(target_digest=digest("9")), {}),
        ({}, benchmark(quantized=side(MODEL, kernel="another")), {}),
        ({}, benchmark(quantized=side(MODEL, dequantized=True)), {}),
        ({}, benchmark_alone(), {}),
        ({}, benchmark_v1(), {}),
        ({}, benchmark(), {"probed": False, "side": None, "not_probed_because": "no GPU"}),
        ({}, benchmark(), {"dequantized": None}),
        ({"depends_on": ("cpu_flags",)}, benchmark(), {}),
        ({"support": "works-slowly"}, benchmark(), {}),
        ({"row": NO_TABLE}, benchmark(), {}),
        ({}, benchmark(parent=side(PARENT, settings={"device": "cuda"})), {}),
    ],
)
def test_a_clock_elsewhere_or_of_something_else_says_nothing(
    table: dict[str, Any], measured: Predicate, probe: dict[str, Any]
) -> None:
    assert by_clock(row(**{"support": "unknown"} | table), measured, **probe).outcome != "pass"


def test_a_probe_in_another_version_than_the_target_serves_does_not_count() -> None:
    wanted = target().model_copy(update={"runtime_version": ">=2"})
    measured = kernels(target_digest=wanted.digest)
    found = judged(measured, target=wanted)
    assert found.outcome == "missing" and "llama.cpp 1, the target serves with >=2" in found.reason
    newer = kernels(target_digest=wanted.digest, side=side(MODEL, kernel="CPU", version="2.1"))
    assert judged(newer, target=wanted).outcome == "pass"


def test_a_probe_on_a_cpu_with_more_instructions_than_the_targets_does_not_count() -> None:
    more = MACHINE.model_copy(update={"cpu_flags": (*MACHINE.cpu_flags, "amx_int8")})
    found = judged(kernels(fingerprint=more))
    assert found.outcome == "missing" and "amx_int8" in found.reason
    assert judged(kernels(fingerprint=MACHINE)).outcome == "pass"


@pytest.mark.parametrize(
    "changes",
    [
        {"parameter_types": {"float32": 200, "bfloat16": 10}},
        {"parameter_types": {"f32": 1, "bf16": 2}},
        {"resident_bytes": 200},
    ],
)
def test_types_and_bytes_in_memory_are_held_against_the_files_whatever_is_claimed(changes: dict[str, Any]) -> None:
    """The statement says `dequantized: false`; its own records say that all of it is full precision."""
    found = judged(kernels(**changes))
    assert found.outcome == "fail" and "dequantizes" in found.reason and found.numbers["support"] == "dequantizes"
    as_stored = {"parameter_types": {"iq4_nl": 1, "f32": 9}, "resident_bytes": 110}
    assert judged(kernels(**as_stored)).outcome == "pass"


def test_a_probe_that_does_not_say_whether_the_weights_were_expanded_is_none() -> None:
    found = judged(kernels(dequantized=None, side=side(MODEL, kernel="CPU", dequantized=None)))
    assert found.outcome == "missing" and "does not say whether" in found.reason
    contradicted = judged(kernels(side=side(MODEL, kernel="CPU", dequantized=True)))
    assert contradicted.outcome == "fail" and "dequantizes" in contradicted.reason


def test_a_probe_on_a_cpu_says_nothing_of_a_gpu() -> None:
    """On a CPU transformers expands what it keeps on the target's GPU: that is no failure of the target, and no pass."""
    base = find_target("gpu-transformers")
    hardware = base.hardware.model_copy(update={"fingerprint": MACHINE})
    wanted = base.model_copy(update={"hardware": hardware, "formats": ("gguf",)})
    seen = side(MODEL, runtime="transformers", version="5.24.0", kernel="Linear", settings={"device": "cpu"})
    said: dict[str, Any] = {"target_digest": wanted.digest, "lookup": row(runtime="transformers").model_dump()}
    for dequantized in (True, False):
        found = judged(kernels(**said, side=seen, dequantized=dequantized), row(runtime="transformers"), target=wanted)
        assert found.outcome == "missing" and "It was seen on CPU, the target serves on CUDA" in found.reason
    on_gpu = seen.model_copy(update={"settings": {"device": "cuda"}})
    other = MACHINE.model_copy(update={"accelerator": "GPU", "compute_capability": "9.0"})
    found = judged(kernels(**said, side=on_gpu, fingerprint=other), row(runtime="transformers"), target=wanted)
    assert found.outcome == "missing" and "compute capability 9.0" in found.reason
    same = other.model_copy(update={"compute_capability": "8.6"})
    found = judged(kernels(**said, side=on_gpu, fingerprint=same), row(runtime="transformers"), target=wanted)
    assert found.outcome == "pass"


def test_statements_from_before_the_new_records_are_read_and_name_no_machine() -> None:
    """Earlier statements name no shares, operators or machine; their summaries still follow from their records."""
    old = kernels().model_dump(mode="json")
    for key in (
        "expanded_share",
        "emulated_share",
        "operators",
        "instruction_sets",
        "unused_instruction_sets",
        "fingerprint",
    ):
        del old[key]
    for key in ("expects", "needs", "read_at", "read_on", "depends_on", "share", "notes"):
        del old["lookup"][key]
    found = Kernels.model_validate(old)
    found.verify_summary()
    said = judged(found)
    assert said.outcome == "missing" and "does not say on which machine" in said.reason


def test_a_runtime_of_another_name_is_no_way_around_its_table() -> None:
    """GPTQ on a CPU is slow in transformers; what calls itself otherwise is not known, and no clock settles it."""
    wanted = target().model_copy(update={"runtime": "Transformers"})
    table = lookup(quantization(), wanted)
    seen = side(MODEL, runtime="Transformers", kernel="Linear")
    found = judged(kernels(target_digest=wanted.digest, side=seen), table, target=wanted)
    assert found.outcome == "missing"
    assert "no table of the runtime Transformers, but of llama.cpp, onnxruntime, openai, sglang," in found.reason
    assert found.fix.startswith("name the runtime as a table does in mine.yaml")


def test_a_probe_that_names_no_kernel_confirms_none() -> None:
    table = row(expects=("CPU*",))
    found = judged(kernels(side=side(MODEL)), table)
    assert found.outcome == "missing" and "names no kernel, and the table (a-row) expects CPU*" in found.reason
    assert judged(kernels(side=side(MODEL), operators=("CPU matmul",)), table).outcome == "pass"


def test_a_probe_that_was_brought_from_elsewhere_names_its_machine_too() -> None:
    brought = provenance(imported=True)
    found = judged(kernels(provenance=brought, fingerprint=None))
    assert found.outcome == "missing" and "does not say on which machine" in found.reason
    assert judged(kernels(provenance=brought)).outcome == "pass"
