"""What the records of a benchmark say: medians, bounds of the ratios, quantiles of latency, memory, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any

from mlflow_quantgov.evidence.predicates.benchmark import Speed
from mlflow_quantgov.evidence.predicates.benchmark_memory import Memory, memory_of
from mlflow_quantgov.evidence.predicates.benchmark_v3 import (
    MustImprove,
    Phase,
    Resources,
    Sample,
    TimedLoad,
    Try,
    pace,
    phases_of,
)
from mlflow_quantgov.evidence.statistics.sequence import median_bounds

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark

LEVEL = 0.05
"""Probability, for each bound, that it ever fails while rounds are added."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to, for one demand."""

    outcome: str | None
    """`pass`, `fail`, `inconclusive`, `missing`; None where the parent did not load, so that the policy's floors decide."""
    reason: str
    """One sentence without its end."""


def summarize(content: Benchmark, memory: Memory | None = None) -> dict[str, Any]:
    """Per load the medians of both sides and their ratios with bounds, latency, and memory; and what that comes to.

    Args:
        content: The records.
        memory: What both sides took, as an earlier version compared it.
    """
    memory = memory or memory_of(content)
    verdict = judge(content, content.demand.must_improve, content.demand.phase, memory)
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "loads": [_load(load) for load in content.loads],
        "memory_ratio": memory.ratio,
        "memory": memory.to_dict(),
        "load_seconds": {
            "parent": _load_seconds(content.parent_tries, content.parent_resources),
            "quantized": _load_seconds(content.quantized_tries, content.quantized_resources),
        },
        "configurations": {
            "parent": _configuration(content.parent_tries),
            "quantized": _configuration(content.quantized_tries),
        },
    }


def judge(content: Benchmark, must_improve: MustImprove, phase: Phase, memory: Memory | None = None) -> Verdict:
    """Whether the quantized version improves what a target wants improved.

    Faster: at every load and in every phase that counts, the lower bound of the ratio of the speeds is at least 1 (all must
    hold, so no bound needs correction). Slower: somewhere its upper bound is below 1; there the level is divided by the
    number of places looked at. Neither is believed where the side that lost was faster than the winner in another of its own
    configurations: then something disturbed the heat that chose.

    Less memory: the ratio is below 1, and the instrument tells the sides apart. Where it does not, more rounds would not
    help, so that is a `fail` and not `inconclusive`.
    """
    if content.parent_not_loaded is not None:
        lost = content.parent_not_loaded
        return Verdict(None, f"the parent does not load here ({lost.cause}: {lost.error})")
    speed = _undisturbed(content, phase, _judge_speed(content.loads, phase))
    less = _judge_memory(memory or memory_of(content))
    asked = {"speed": [speed], "memory": [less], "both": [speed, less]}[must_improve]
    for outcome in ("fail", "missing", "inconclusive"):
        for one in asked:
            if one.outcome == outcome:
                return one
    return Verdict("pass", ", ".join(one.reason for one in asked))


def ratios_of(load: TimedLoad, phase: str) -> list[float]:
    """Quantized / parent of every round, in tokens per second."""
    return [getattr(one.quantized, phase) / getattr(one.parent, phase) for one in load.rounds if one.parent is not None]


def ratio_bounds(load: TimedLoad, phase: str, level: float = LEVEL) -> tuple[float | None, float | None]:
    """Bounds of the median ratio that hold whenever one stops; None where there are too few rounds."""
    return median_bounds(ratios_of(load, phase), level)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None where so few values were seen that it would be the largest by name alone."""
    if len(values) * (1 - share) < 1 - 1e-9:
        return None
    return sorted(values)[ceil(share * len(values) - 1e-9) - 1]


def first_tokens_ms(load: TimedLoad, samples: Sequence[Sample]) -> list[float]:
    """Milliseconds to the first token, of each request; of each round where its requests were one batch."""
    found: list[float] = []
    for one in samples:
        found += [1000 * request.first for request in one.requests] or [1000 * _prefill_seconds(load, one)]
    return found


def _judge_speed(loads: Sequence[TimedLoad], phase: Phase) -> Verdict:
    places = [(load, name) for load in loads for name in phases_of(phase)]
    for load, name in places:
        _, high = ratio_bounds(load, name, LEVEL / len(places))
        if high is not None and high < 1:
            return Verdict("fail", f"slower than its parent: {_speeds(load, name)}")
    weakest = min(places, key=lambda place: ratio_bounds(*place)[0] or 0)
    low, _ = ratio_bounds(*weakest)
    if low is None:
        return Verdict("inconclusive", f"{len(weakest[0].rounds)} rounds are too few for a bound")
    if low < 1:
        return Verdict("inconclusive", f"not shown to be faster than its parent: {_speeds(*weakest)}")
    return Verdict("pass", _speeds(*weakest))


def _undisturbed(content: Benchmark, phase: Phase, found: Verdict) -> Verdict:
    """The verdict, unless the heat took a configuration in which a side then was slower than in one that it left.

    On a busy machine the best of a few runs of a heat may be luck, and the rounds show what the configuration really does.
    """
    if found.outcome not in {"pass", "fail"}:
        return found
    lost, won = ("parent", "quantized") if found.outcome == "pass" else ("quantized", "parent")
    tries = content.parent_tries if lost == "parent" else content.quantized_tries
    left = max(
        (one for one in tries if one.speeds and not one.chosen), key=lambda one: pace(one.speeds, phase), default=None
    )
    if left is None or pace(left.speeds, phase) <= pace(_medians(content.loads, won), phase):
        return found
    names = {"parent": "the parent", "quantized": "the quantized version"}
    return Verdict(
        "inconclusive",
        f"something disturbed the heat: {names[lost]} was faster there as {left.configuration}, which was not taken, than "
        f"{names[won]} was in the rounds",
    )


def _medians(loads: Sequence[TimedLoad], side: str) -> tuple[Speed, ...]:
    found = []
    for load in loads:
        samples = [getattr(one, side) for one in load.rounds]
        speeds = {name: median(getattr(one, name) for one in samples) for name in ("prefill", "decode")}
        found.append(Speed(**speeds))
    return tuple(found)


def _judge_memory(memory: Memory) -> Verdict:
    if memory.ratio is None:
        return Verdict("missing", "memory was not measured")
    basis = "; the parent takes least as: ".join(one for one in (memory.basis, memory.parent_configuration) if one)
    if memory.ratio >= 1:
        return Verdict("fail", f"it takes {memory.ratio:.2f} times its parent's memory ({basis})")
    words = f"{memory.ratio:.0%} of its parent's memory ({basis})"
    if not memory.told_apart:
        return Verdict("fail", f"not shown to take less memory: {words}, as two runs of the same model may differ")
    return Verdict("pass", words)


def _speeds(load: TimedLoad, phase: str) -> str:
    low, high = ratio_bounds(load, phase)
    parent = median(getattr(one.parent, phase) for one in load.rounds)
    quantized = median(getattr(one.quantized, phase) for one in load.rounds)
    between = f", {low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    ratio = f"x{median(ratios_of(load, phase)):.2f}{between}"
    where = f"{phase} at batch {load.batch}, {load.prompt_tokens} + {load.output_tokens} tokens"
    return f"{quantized:.4g} against {parent:.4g} tokens/s ({ratio}) in {where}"


def _load(load: TimedLoad) -> dict[str, Any]:
    parent = [one.parent for one in load.rounds if one.parent is not None]
    quantized = [one.quantized for one in load.rounds]
    found: dict[str, Any] = {
        "batch": load.batch,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "rounds": len(load.rounds),
        "ended": load.ended,
        "confidence": 1 - LEVEL,
    }
    for phase in ("prefill", "decode"):
        ratios = ratios_of(load, phase)
        low, high = median_bounds(ratios, LEVEL)
        least, most = median_bounds([getattr(one, phase) for one in quantized], LEVEL)
        found[phase] = {
            "parent": median([getattr(one, phase) for one in parent]) if parent else None,
            "quantized": median([getattr(one, phase) for one in quantized]),
            "quantized_low": least,
            "quantized_high": most,
            "ratio": median(ratios) if ratios else None,
            "ratio_low": low,
            "ratio_high": high,
        }
    for name, times in (("time_to_first_token_ms", first_tokens_ms), ("request_ms", _requests_ms)):
        found[name] = {
            "parent": _quantiles(times(load, parent)) if parent else None,
            "quantized": _quantiles(times(load, quantized)),
        }
    return found


def _quantiles(values: Sequence[float]) -> dict[str, Any]:
    return {"samples": len(values)} | {name: quantile(values, share) for name, share in QUANTILES.items()}


def _requests_ms(load: TimedLoad, samples: Sequence[Sample]) -> list[float]:
    """Milliseconds to the last token."""
    found: list[float] = []
    for one in samples:
        whole = _prefill_seconds(load, one) + load.batch * load.output_tokens / one.decode
        found += [1000 * request.last for request in one.requests] or [1000 * whole]
    return found


def _prefill_seconds(load: TimedLoad, speed: Speed) -> float:
    """Of a batch that is read as one: the prefill gives the first token's logits."""
    return load.batch * load.prompt_tokens / speed.prefill


def _load_seconds(tries: Sequence[Try], resources: Resources) -> dict[str, float | None]:
    cold = next((one.load_seconds for one in tries if one.cold and one.load_seconds is not None), None)
    return {"cold": cold, "warm": resources.load_seconds}


def _configuration(tries: Sequence[Try]) -> str | None:
    return next((one.configuration for one in tries if one.chosen), None)
