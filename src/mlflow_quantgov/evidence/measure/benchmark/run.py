"""A benchmark of files: heats, rounds, resources, one after the other."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mlflow_quantgov.artifact.behaviour import behaviour_digest
from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure.benchmark.heat import Heat, find_fastest
from mlflow_quantgov.evidence.measure.benchmark.process import DidNotRunError
from mlflow_quantgov.evidence.measure.benchmark.rounds import Until, run_rounds
from mlflow_quantgov.evidence.measure.benchmark.sides import Sides
from mlflow_quantgov.evidence.measure.cgroup import ControlGroups
from mlflow_quantgov.evidence.measure.fingerprint import free_memory, this_machine
from mlflow_quantgov.evidence.measure.progress import Progress, duration
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.benchmark_summary import LEVEL
from mlflow_quantgov.evidence.predicates.benchmark_v3 import (
    Benchmark,
    Conditions,
    Demand,
    NotLoaded,
    SideName,
    TimedLoad,
)
from mlflow_quantgov.evidence.statistics.sequence import least_count
from mlflow_quantgov.evidence.targets import Target

_BUSY = 0.5
"""Of the cores: a load average above it is worth a warning."""
_HEATS = 0.2
"""Share of the progress bar."""


@dataclass(frozen=True)
class Effort:
    """How much is spent on narrow intervals."""

    minutes: float = 10.0
    """For the rounds; the fewest that give a bound are run however long they take."""
    width: float = 0.1
    """Relative width of the interval of a ratio at which rounds end."""
    rounds: int | None = None
    """Exactly so many rounds instead."""

    def __post_init__(self) -> None:
        """Refuse an effort that measures nothing.

        Raises:
            UsageError: A value is out of range.
        """
        fewest = least_count(LEVEL)
        if self.rounds is not None and not fewest <= self.rounds <= 1000:
            raise UsageError(
                f"{self.rounds} rounds were asked for.",
                why=f"Fewer than {fewest} give no bound at 95 %, and a statement holds 1,000.",
                fix=f"leave it out, or ask for {fewest} or more",
            )
        if not 0 < self.minutes <= 1440 or not 0 < self.width <= 10:
            raise UsageError(
                f"{self.minutes:g} minutes and an interval of {self.width:g} were asked for.",
                why="Both are above 0; a day, and ten times the ratio, are the most.",
                fix="use for example 10 minutes and 0.1",
            )


def run(
    parent: Path,
    quantized: Path,
    target: Target,
    *,
    parent_weights: str,
    quantized_weights: str,
    effort: Effort | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Time both sides at the target's loads, each in the fastest lossless configuration that a heat finds.

    Each side runs in a process of its own. A parent that does not load here is recorded as such; the quantized version is
    then timed alone.

    Args:
        parent: Full-precision folder or file.
        quantized: Quantized folder or file.
        target: Names runtime and loads.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        effort: Time, width, rounds.
        cache: Folder for converted twins; a temporary one where None.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        MissingExtraError: The runtime is not installed.
        ArtifactError: The quantized version does not load.
        UsageError: A load does not fit into the models' context.
    """
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantgov-benchmark-")))
        return _Benchmark(target, effort or Effort(), folder, progress or (lambda message, fraction: None)).run(
            (parent, parent_weights), (quantized, quantized_weights)
        )


class _Benchmark:
    def __init__(self, target: Target, effort: Effort, cache: Path, progress: Progress) -> None:
        self._target, self._effort, self._cache, self._progress = target, effort, cache, progress
        self._machine = this_machine()
        self._groups = ControlGroups()
        self._begin = load_average(), self._groups.throttled_periods(), self._groups.out_of_memory_kills()
        self._adapter: RuntimeAdapter = find_runtime(target.runtime)

    def run(self, parent: tuple[Path, str], quantized: tuple[Path, str]) -> Benchmark:
        right = self._heat("quantized", quantized[0], 0.0)
        if right.prepared is None or right.facts is None:
            raise _quantized_does_not_load(quantized[0], self._target, right.failure)
        free = free_memory()
        left = self._heat("parent", parent[0], _HEATS / 2)
        together = left.peak_bytes + right.peak_bytes < 0.9 * free_memory()
        sides = Sides(self._target.runtime, {"parent": left, "quantized": right}, together=together)
        with sides:
            loads = self._rounds(sides, left.seconds + right.seconds)
            resources = sides.resources()
        parent_side = (
            side(parent[1], left.facts, parent[0])
            if left.facts
            else Side(
                weights=parent[1],
                behaviour=_behaviour_or_none(parent[0]),
                runtime=right.facts.runtime,
                version=right.facts.version,
            )
        )
        conditions = Conditions(
            load_average=self._begin[0],
            throttled_periods=_since(self._begin[1], self._groups.throttled_periods()),
            together=together,
        )
        self._progress("done", 1.0)
        return Benchmark.measured(
            provenance=provenance(*RUNTIME_LIBRARIES),
            target=self._target.name,
            target_digest=self._target.digest,
            demand=demand_of(self._target, self._effort),
            fingerprint=self._machine,
            parent=parent_side,
            quantized=side(quantized[1], right.facts, quantized[0]),
            parent_not_loaded=self._not_loaded(left, free),
            parent_tries=left.tries,
            quantized_tries=right.tries,
            loads=tuple(loads),
            parent_resources=resources["parent"],
            quantized_resources=resources["quantized"],
            conditions=conditions,
            warnings=warnings_of(conditions, self._machine.cores, loads),
        )

    def _heat(self, name: SideName, path: Path, fraction: float) -> Heat:
        tried = 0

        def report(words: str) -> None:
            nonlocal tried
            self._progress(f"heat of the {name}: {words}", fraction + min(tried, 5) * _HEATS / 12)
            tried += 1

        return find_fastest(
            self._adapter,
            path,
            self._target,
            cores=self._machine.cores,
            free_bytes=free_memory(),
            cache=self._cache,
            report=report,
        )

    def _rounds(self, sides: Sides, seconds: float) -> list[TimedLoad]:
        effort = self._effort
        until = Until(effort.rounds, effort.width, 60 * effort.minutes, self._target.phase)
        least = duration(seconds * (until.fewest + 1))
        most = (
            ""
            if effort.rounds
            else f" or more, at most about {duration(max(60 * effort.minutes, seconds * until.fewest))}"
        )
        self._progress(f"{until.fewest} rounds{most}; {until.fewest} take about {least}", _HEATS)

        def report(words: str, fraction: float) -> None:
            self._progress(words, _HEATS + (1 - _HEATS) * fraction)

        try:
            return run_rounds(sides.time, self._target.loads, until, report)
        except DidNotRunError as error:
            raise ArtifactError(
                f"A side stopped while it was timed: {error.words}.",
                why="Rounds of which one half is missing compare nothing; nothing was attached.",
                fix="give the machine more memory or a smaller load, and run it again",
            ) from error

    def _not_loaded(self, heat: Heat, free: int) -> NotLoaded | None:
        if heat.prepared is not None:
            return None
        failure = heat.failure or DidNotRunError("refused", "it has no lossless configuration in this runtime")
        kills = _since(self._begin[2], self._groups.out_of_memory_kills())
        return NotLoaded(cause=failure.cause, error=failure.words, free_memory_bytes=free, out_of_memory_kills=kills)


def demand_of(target: Target, effort: Effort) -> Demand:
    """What the target asks for, as it is recorded."""
    return Demand(must_improve=target.must_improve, phase=target.phase, width=effort.width)


def load_average() -> float | None:
    """Processes that wanted to run in the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def warnings_of(conditions: Conditions, cores: int, loads: list[TimedLoad]) -> tuple[str, ...]:
    """What makes numbers wide, or doubtful."""
    found = []
    busy = conditions.load_average
    if busy is not None and busy > _BUSY * cores:
        found.append(
            f"The machine was busy when this began: load average {busy:.1f} on {cores} cores. Both sides are slower than on a "
            "quiet one, and the intervals are wider."
        )
    if conditions.throttled_periods:
        found.append(f"The cgroup's CPU quota stopped this run in {conditions.throttled_periods:,} periods.")
    if not conditions.together:
        found.append("Both models do not fit into memory at once: each was loaded again for its half of every round.")
    if any(load.ended == "time" for load in loads):
        found.append("The time was up before the intervals were narrow; --minutes gives more.")
    return tuple(found)


def _since(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _behaviour_or_none(path: Path) -> str | None:
    """None for files that are broken: then what is stated is about no model that the gate has read, and counts for none."""
    try:
        return behaviour_digest(path)
    except ArtifactError:
        return None


def _quantized_does_not_load(path: Path, target: Target, failure: DidNotRunError | None) -> Exception:
    if failure is not None and failure.raised is not None:
        return failure.raised
    words = failure.words if failure else "none of its configurations ran"
    return ArtifactError(
        f"{target.runtime} does not run {path.name} on this machine: {words}.",
        why="What does not run cannot be measured; nothing was attached.",
        fix=f"quantgov inspect {path}",
    )
