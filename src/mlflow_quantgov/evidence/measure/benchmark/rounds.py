"""Rounds of both sides, in an order that a fair coin decides, until the intervals are narrow or the time is up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow_quantgov.evidence.measure.progress import duration
from mlflow_quantgov.evidence.predicates.benchmark_summary import LEVEL, ratios_of
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Phase, Sample, SideName, TimedLoad, TimedRound, phases_of
from mlflow_quantgov.evidence.statistics.sequence import least_count, median_bounds
from mlflow_quantgov.evidence.targets import TargetLoad

MOST_ROUNDS = 300
"""Of one load, where the time is not up before: a statement stays small."""
TimeSide = Callable[[SideName, TargetLoad], Sample | None]
"""Runs a load on a side once, warm; None where the parent does not load."""


@dataclass(frozen=True)
class Until:
    """When there are enough rounds."""

    rounds: int | None
    """Exactly so many; None: until narrow, or the time is up."""
    width: float
    """Relative width at which an interval is narrow: upper / lower bound - 1."""
    seconds: float
    """Time for all rounds of all loads, beyond the fewest that give a bound."""
    phase: Phase

    @property
    def fewest(self) -> int:
        """Rounds of each load, whatever the time."""
        return self.rounds or least_count(LEVEL)


def run_rounds(
    time_side: TimeSide, loads: Sequence[TargetLoad], until: Until, report: Callable[[str, float], None]
) -> list[TimedLoad]:
    """Time every load of which the intervals are not yet narrow, round by round.

    Args:
        time_side: Runs a load on a side.
        loads: Of the target.
        until: When to stop.
        report: Takes words, and the fraction done.
    """
    coin = random.SystemRandom()
    found: list[list[TimedRound]] = [[] for _ in loads]
    ended: list[Literal["narrow", "time", "rounds"] | None] = [None] * len(loads)
    begin = time.monotonic()
    for index, load in enumerate(loads):
        _round(time_side, load, coin)  # warm-up: pages, caches and repacked weights are in place afterwards
        report(f"load {index + 1} of {len(loads)}: warm", 0.0)
    while any(one is None for one in ended):
        for index, load in enumerate(loads):
            if ended[index] is not None:
                continue
            found[index].append(_round(time_side, load, coin))
            spent = time.monotonic() - begin
            ended[index] = _end(_as_load(load, found[index]), until, spent)
            left = duration(max(0.0, until.seconds - spent))
            most = "" if until.rounds is not None or spent >= until.seconds else f"; {left} left at most"
            report(_words(index, load, found, until) + most, _fraction(found, ended, until, spent))
    return [_as_load(load, rounds, why or "rounds") for load, rounds, why in zip(loads, found, ended, strict=True)]


def _round(time_side: TimeSide, load: TargetLoad, coin: random.Random) -> TimedRound:
    """Both sides once. With a fair coin for the order, neither drift nor what a load leaves behind favours a side."""
    first: SideName = "parent" if coin.random() < 0.5 else "quantized"
    second: SideName = "quantized" if first == "parent" else "parent"
    times = {name: time_side(name, load) for name in (first, second)}
    quantized = times["quantized"]
    assert quantized is not None, "the quantized side always runs"
    return TimedRound(first=first, parent=times["parent"], quantized=quantized)


def _end(load: TimedLoad, until: Until, spent: float) -> Literal["narrow", "time", "rounds"] | None:
    count = len(load.rounds)
    if until.rounds is not None or count >= MOST_ROUNDS:
        return "rounds" if count >= min(until.rounds or MOST_ROUNDS, 1000) else None
    if count < until.fewest:
        return None
    if all(_width(load, phase) <= until.width for phase in phases_of(until.phase)):
        return "narrow"
    return "time" if spent >= until.seconds else None


def _width(load: TimedLoad, phase: str) -> float:
    """Relative width of the interval of the ratio; of the quantized side's own speed where there is no parent."""
    values = ratios_of(load, phase) or [getattr(one.quantized, phase) for one in load.rounds]
    low, high = median_bounds(values, LEVEL)
    return high / low - 1 if low and high else float("inf")


def _as_load(
    load: TargetLoad, rounds: Sequence[TimedRound], ended: Literal["narrow", "time", "rounds"] = "rounds"
) -> TimedLoad:
    return TimedLoad(**load.model_dump(), rounds=tuple(rounds), ended=ended)


def _fraction(found: Sequence[Sequence[TimedRound]], ended: Sequence[str | None], until: Until, spent: float) -> float:
    """How far it is at least: the rounds that are due, then the time."""
    if all(one is not None for one in ended):
        return 1.0
    due = sum(min(len(one), until.fewest) for one in found) / (until.fewest * len(found))
    return (
        due if until.rounds is not None else min(0.99, max(min(due, 0.5), min(1.0, spent / max(until.seconds, 1e-9))))
    )


def _words(index: int, load: TargetLoad, found: Sequence[Sequence[TimedRound]], until: Until) -> str:
    now = _as_load(load, found[index])
    parts = []
    for phase in phases_of(until.phase):
        ratios = sorted(ratios_of(now, phase))
        if not ratios:
            continue
        low, high = median_bounds(ratios, LEVEL)
        between = f" ({low:.2f} to {high:.2f})" if low and high else ""
        parts.append(f"{phase} x{ratios[len(ratios) // 2]:.2f}{between}")
    where = f"load {index + 1} of {len(found)}, " if len(found) > 1 else ""
    return f"{where}round {len(found[index])}: {', '.join(parts) or 'quantized alone'}"
