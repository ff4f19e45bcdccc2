"""Memory: like against like, what an instrument cannot tell apart, and what expands its weights all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy import releases

from mlflow_quantgov.evidence.predicates import Benchmark, BenchmarkV2
from mlflow_quantgov.evidence.predicates.benchmark_memory import memory_of
from mlflow_quantgov.evidence.predicates.benchmark_summary import judge
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Resources
from mlflow_quantgov.evidence.statement import parse_statement

KIB, MIB, MB, GB = 1024, 2**20, 10**6, 10**9
BLUR = 8 * 2**20
DATA = Path(__file__).parent.parent / "data" / "statements"


def process(bytes_: int, weights: int | None = None, libraries: int = 64_000 * KIB) -> Resources:
    return Resources(baseline_bytes=libraries, peak_bytes=libraries + bytes_, weight_bytes=weights)


def took(
    parent: Resources, quantized: Resources, *, heats: tuple[Resources, Resources] | None = None, **changes: Any
) -> Benchmark:
    """What both processes took in the rounds and, where given, in the heats of the same configurations."""
    if heats:
        for name, one, speed in zip(("parent", "quantized"), heats, (releases.SLOW, releases.FAST), strict=True):
            changes[f"{name}_tries"] = (releases.tried(speed).model_copy(update={"resources": one}),)
    return releases.benchmark(parent_resources=parent, quantized_resources=quantized, **changes)


def also_tried(content: Benchmark, heat: Resources) -> Benchmark:
    """With a configuration of the parent that was slower, and what it took in its heat."""
    update = {"resources": heat, "configuration": "BF16 twin, 1 thread"}
    other = releases.tried(releases.SLOW, chosen=False).model_copy(update=update)
    return content.model_copy(update={"parent_tries": (*content.parent_tries, other)})


def outcome(content: Benchmark) -> str | None:
    return judge(content, "memory", "decode").outcome


def test_what_the_rounds_add_to_the_parent_counts_in_its_other_configurations_too() -> None:
    """After 600 rounds a process holds more than after a heat; beside its parent's heat an 8-bit version seemed larger."""
    content = took(process(250 * MB), process(214 * MB), heats=(process(212 * MB), process(180 * MB)))
    assert (outcome(content), memory_of(content).ratio) == ("pass", 214 / 250)
    memory = memory_of(also_tried(content, process(210 * MB)))
    assert (memory.ratio, memory.parent_configuration) == (214 / 248, "BF16 twin, 1 thread")


def test_what_the_rounds_add_to_the_quantized_version_alone_counts() -> None:
    """The parent's cheapest configuration ran a heat only, and the one that was timed held no more after its rounds."""
    content = took(process(20 * GB), process(15 * GB), heats=(process(20 * GB), process(9 * GB)))
    content = also_tried(content, process(10 * GB))
    assert (outcome(content), memory_of(content).ratio) == ("fail", 1.5)


def test_heats_are_held_against_heats() -> None:
    """The parent that was timed grew in its rounds; that is nothing to the credit of a version that did not."""
    content = took(process(30 * GB), process(15 * GB), heats=(process(20 * GB), process(15 * GB)))
    content = also_tried(content, process(10 * GB))
    assert (outcome(content), memory_of(content).ratio) == ("fail", 1.5)


@pytest.mark.parametrize(
    ("parent", "quantized"),
    [
        (process(40 * MIB, 16 * MIB), process(33 * MIB, 8 * MIB)),
        (process(40 * MIB, 16 * MIB), process(33 * MIB, 7 * MIB)),
        (process(40 * MIB, 20 * MIB), process(32 * MIB, 11 * MIB)),
        (
            Resources(device_bytes=60 * MIB, weight_bytes=50 * MIB),
            Resources(device_bytes=40 * MIB, weight_bytes=25 * MIB),
        ),
        (  # Kernels that a GPU's libraries load or compile late lie in the process beside it.
            process(300 * MIB, 20 * MIB).model_copy(update={"device_bytes": 40 * MIB}),
            process(330 * MIB, 10 * MIB).model_copy(update={"device_bytes": 40 * MIB}),
        ),
    ],
)
def test_peaks_and_weights_that_agree_are_a_saving(parent: Resources, quantized: Resources) -> None:
    """Between what the weights alone and the peaks alone can show there is no gap into which an honest model falls."""
    assert outcome(took(parent, quantized)) == "pass"


def test_the_weights_decide_where_models_are_too_small_for_a_peak() -> None:
    """The numbers of the quick demo's model, at the moment at which its verdict would tip."""
    weights = 1669 * KIB, 890 * KIB
    heats = process(11_448 * KIB, weights[0]), process(11_100 * KIB, weights[1])
    content = took(process(12_300 * KIB, weights[0]), process(12_356 * KIB, weights[1]), heats=heats)
    memory = memory_of(content)
    assert (memory.basis, memory.ratio, outcome(content)) == ("loaded weights", 890 / 1669, "pass")


def test_a_small_model_without_its_weights_is_not_shown_to_take_less() -> None:
    verdict = judge(took(process(11_900 * KIB), process(11_200 * KIB)), "memory", "decode")
    assert verdict.outcome == "fail" and "not shown to take less memory: 94%" in verdict.reason


def test_weights_that_were_expanded_again_pass_by_no_name() -> None:
    """The runtime says that it holds half; its process holds as much as the parent's."""
    content = took(process(500 * MB, 400 * MB), process(499 * MB, 200 * MB))
    verdict = judge(content, "memory", "decode")
    assert verdict.outcome == "fail" and "100% of its parent's memory (peak of the process" in verdict.reason


def test_more_weights_than_the_parent_are_no_gain() -> None:
    assert outcome(took(process(12 * MB, MB), process(11 * MB, 2 * MB))) == "fail"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            took(Resources(), process(10 * GB), heats=(process(212 * MB), process(180 * MB))),
            id="rounds of the parent that were not measured",
        ),
        pytest.param(
            took(process(100 * MB, 50 * MB), process(107 * MB, 43 * MB)),
            id="peaks that grow by what the weights save",
        ),
        pytest.param(
            took(
                Resources(device_bytes=20_000 * MB, weight_bytes=10_000 * MB),
                Resources(device_bytes=20_018 * MB, weight_bytes=9_985 * MB),
            ),
            id="the same on a GPU",
        ),
        pytest.param(
            took(
                process(GB, 50 * MIB).model_copy(update={"device_bytes": 100 * MIB}),
                process(8 * GB, 40 * MIB).model_copy(update={"device_bytes": 100 * MIB}),
            ),
            id="a GPU that cannot tell, and a process that holds eight times as much",
        ),
    ],
)
def test_what_was_shown_against_it_is_not_outweighed(content: Benchmark) -> None:
    assert outcome(content) == "fail"


def test_a_heat_alone_shows_nothing() -> None:
    content = took(Resources(), Resources(), heats=(process(212 * MB), process(180 * MB)))
    assert outcome(content) == "missing"


def test_a_statement_of_version_2_is_read_as_it_was_written_and_judged_as_it_would_be_now() -> None:
    """Written by the last commit that wrote version 2; the database keeps such for ever, and a decision may rest on them."""
    statement = parse_statement((DATA / "benchmark-v2.json").read_bytes())
    content = statement.content()
    assert isinstance(content, BenchmarkV2)
    stated = content.stated()
    assert stated["outcome"] == "fail" and stated["memory_ratio"] == 214 / 210
    verdict = judge(content, "memory", "decode")
    assert (verdict.outcome, verdict.reason[:31]) == ("pass", "86% of its parent's memory (pea")


BYTES = st.integers(1, 2**40)


@given(BYTES, BYTES, st.integers(0, 2**40))
def test_what_hundreds_of_rounds_add_to_both_sides_changes_no_verdict(parent: int, quantized: int, more: int) -> None:
    """Found where a busy machine went on for its ten minutes: the quantized version was held against the parent's heat."""
    heats = process(parent, parent), process(quantized, quantized)
    short = took(*heats, heats=heats)
    long = took(process(parent + more, parent), process(quantized + more, quantized), heats=heats)
    assert outcome(long) == outcome(short)


@given(BYTES, BYTES, st.none() | BYTES, st.none() | BYTES)
def test_whoever_passes_took_less(parent: int, quantized: int, before: int | None, after: int | None) -> None:
    """In peaks that can be told apart, or in both weights and nothing that a peak should have shown."""
    content = took(process(parent, before), process(quantized, after))
    if outcome(content) == "pass" and parent - quantized <= BLUR:
        assert before is not None and after is not None
        assert 0 < before - after <= BLUR + (parent - quantized) and abs(parent - quantized) <= BLUR
