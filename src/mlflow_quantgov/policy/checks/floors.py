"""Absolute speed and memory, for a version whose parent does not load on the machine that serves."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.predicates.benchmark_memory import memory_of
from mlflow_quantgov.evidence.predicates.benchmark_summary import LEVEL, Verdict, first_tokens_ms
from mlflow_quantgov.evidence.predicates.benchmark_v3 import (
    MustImprove,
    NotLoaded,
    Phase,
    Sample,
    TimedLoad,
    phases_of,
)
from mlflow_quantgov.evidence.statistics.sequence import median_bounds
from mlflow_quantgov.policy.schema import Floors

_WORDS = {
    "memory": "its memory ran out",
    "refused": "the runtime refused it",
    "crashed": "its process ended",
    "time": "it took too long",
}


def judge_floors(content: Benchmark, floors: Floors | None, must_improve: MustImprove, phase: Phase) -> Verdict:
    """Whether the version alone reaches what a policy asks for at every load: by the bounds of its medians.

    Args:
        content: A benchmark whose parent did not load.
        floors: Of the gate; None where it names none.
        must_improve: What the target asks for: speed needs a floor in every phase that counts, memory a ceiling, unless the
            parent's own ran out.
        phase: The phases that count.
    """
    lost = content.parent_not_loaded
    assert lost is not None
    why = f"the parent was tried and does not load there ({_reason(lost)})"
    if floors is None:
        return Verdict("missing", f"not measured against the parent: {why}, and the policy names no floors")
    asked = phases_of(phase) if must_improve != "memory" else ()
    lacking = [name for name in asked if getattr(floors, f"{name}_tokens_per_second") is None]
    if lacking:
        return Verdict("missing", f"{why}, and the policy names no floor for {' and '.join(lacking)}")
    if must_improve != "speed" and lost.cause != "memory" and floors.peak_memory_gb is None:
        return Verdict("missing", f"{why}, and the policy names no ceiling for memory (peak_memory_gb)")
    reached = [Verdict("pass", why)]
    for load in content.loads:
        samples = [one.quantized for one in load.rounds]
        for name in ("prefill", "decode"):
            least = getattr(floors, f"{name}_tokens_per_second")
            if least is not None:
                reached.append(_at_least(load, f"{name}, tokens/s", [getattr(one, name) for one in samples], least))
        if floors.time_to_first_token_ms is not None:
            reached.append(_at_most(load, samples, floors.time_to_first_token_ms))
    if floors.peak_memory_gb is not None:
        reached.append(_memory(content, floors.peak_memory_gb))
    for outcome in ("fail", "missing", "inconclusive"):
        for one in reached:
            if one.outcome == outcome:
                return Verdict(outcome, f"{one.reason}; {why}")
    return Verdict("pass", "; ".join([*(one.reason for one in reached[1:]), why]))


def _reason(lost: NotLoaded) -> str:
    free = f"with {lost.free_memory_bytes / 1e9:.1f} GB free"
    kills = f", {lost.out_of_memory_kills} kills for memory counted by the kernel" if lost.out_of_memory_kills else ""
    return f"{_WORDS[lost.cause]} {free}{kills}: {lost.error}"


def _at_least(load: TimedLoad, what: str, values: list[float], least: float) -> Verdict:
    return _judge(load, what, values, f"the floor {least:g}", lambda low: low >= least, lambda high: high < least)


def _at_most(load: TimedLoad, samples: list[Sample], most: float) -> Verdict:
    values = [-one for one in first_tokens_ms(load, samples)]
    return _judge(
        load,
        "time to first token, ms",
        values,
        f"the ceiling {most:g}",
        lambda low: -low <= most,
        lambda high: -high > most,
    )


def _judge(
    load: TimedLoad,
    what: str,
    values: list[float],
    against: str,
    reaches: Callable[[float], bool],
    misses: Callable[[float], bool],
) -> Verdict:
    """By the bounds of the median of some values, of which more is better."""
    low, high = median_bounds(values, LEVEL)
    where = f"{what} at batch {load.batch}, {load.prompt_tokens} + {load.output_tokens} tokens"
    if low is None or high is None:
        return Verdict("inconclusive", f"{where}: {len(values)} rounds are too few for a bound")
    near, far = sorted((abs(low), abs(high)))
    words = f"{where}: {near:.4g} to {far:.4g} against {against}"
    return Verdict("pass" if reaches(low) else "fail" if misses(high) else "inconclusive", words)


def _memory(content: Benchmark, most: float) -> Verdict:
    memory = memory_of(content)
    if memory.quantized is None:
        return Verdict("missing", "memory was not measured, and the policy names a ceiling")
    words = f"{memory.quantized / 1e9:.3g} GB ({memory.basis}) against the ceiling {most:g} GB"
    return Verdict("pass" if memory.quantized <= most * 1e9 else "fail", words)
