"""A short heat: each lossless configuration of one side is tried, and the fastest is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_quantgov.artifact.runtimes.interface import Configuration, Prepared, RuntimeAdapter, RuntimeFacts
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.evidence.measure.benchmark.process import (
    DidNotRunError,
    ModelProcess,
    Timed,
    best,
    forget_files,
)
from mlflow_quantgov.evidence.predicates.benchmark import Speed
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Sample, Try, pace
from mlflow_quantgov.evidence.targets import Target, TargetLoad

RUNS = 3
"""Timed runs of each load at most; the best counts, since whatever disturbs a run makes it slower."""
_SECONDS = 5.0
"""After so long a load is not run again in the heat."""
_MOST_MEMORY = 0.8
"""Of the free memory: what would take more is left out, as soon as something else has run."""


@dataclass(frozen=True)
class Heat:
    """What the tries of one side gave."""

    tries: tuple[Try, ...]
    prepared: Prepared | None
    """How to open the fastest; None where none ran."""
    facts: RuntimeFacts | None
    seconds: float
    """One run of all loads in the fastest."""
    peak_bytes: int
    """Most resident memory of the fastest; 0 where the system does not tell."""
    failure: DidNotRunError | None
    """Of the last try, where none ran."""


@dataclass(frozen=True)
class _Run:
    result: Try
    prepared: Prepared | None = None
    facts: RuntimeFacts | None = None
    seconds: float = 0.0
    peak_bytes: int = 0
    failure: DidNotRunError | None = None


def find_fastest(
    adapter: RuntimeAdapter,
    path: Path,
    target: Target,
    *,
    cores: int,
    free_bytes: int,
    cache: Path,
    report: Callable[[str], None],
) -> Heat:
    """Try every configuration of an artifact with all cores, and with half and a quarter of them where that is faster.

    Args:
        adapter: The target's runtime.
        path: Folder or file.
        target: Names the loads, and the phases that count.
        cores: That may be used.
        free_bytes: Memory that may be used.
        cache: Where twins are kept.
        report: Takes a few words before each try.

    Raises:
        MissingExtraError: The runtime, or what makes its twins, is not installed.
        QuantgovError: So says the worker, of a library that loading needs; or a load does not fit into the context.
    """
    heat = _Heat(adapter, path, target, cache, report)
    try:
        configurations = adapter.configurations(path)
    except ArtifactError as error:
        return Heat((), None, None, 0.0, 0, DidNotRunError("refused", error.what, error))
    threads = cores if adapter.takes_threads else None
    for one in configurations:
        if one.lossy is not None:
            heat.leave_out(one, f"not lossless: {one.lossy}")
        elif heat.fastest and (one.weight_bytes or 0) > _MOST_MEMORY * free_bytes:
            heat.leave_out(
                one, f"its weights take {(one.weight_bytes or 0) / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free"
            )
        else:
            heat.run_with_threads(one, threads)
    return heat.result()


class _Heat:
    def __init__(
        self, adapter: RuntimeAdapter, path: Path, target: Target, cache: Path, report: Callable[[str], None]
    ) -> None:
        self._adapter, self._path, self._target = adapter, path, target
        self._cache, self._report = cache, report
        self._runs: list[_Run] = []
        self._seen: set[Path] = set()

    @property
    def fastest(self) -> _Run | None:
        ran = [one for one in self._runs if one.prepared is not None]
        return max(ran, key=self._pace, default=None)

    def leave_out(self, configuration: Configuration, why: str) -> None:
        self._runs.append(_Run(Try(configuration=configuration.name, settings=configuration.settings, failed=why)))

    def run_with_threads(self, configuration: Configuration, threads: int | None) -> None:
        """With all threads, then with half of them, again and again up to twice, as long as that is faster."""
        before = self._run(configuration, threads)
        on_gpu = before.facts is not None and before.facts.settings.get("device") == "cuda"
        if threads is None or before.prepared is None or on_gpu:
            return
        for count in dict.fromkeys((threads // 2, threads // 4)):
            if count == 0:
                break
            now = self._run(configuration, count)
            if self._pace(now) <= self._pace(before):
                break
            before = now

    def _run(self, configuration: Configuration, threads: int | None) -> _Run:
        words = (
            configuration.name if threads is None else f"{configuration.name}, {threads} thread{'s' * (threads > 1)}"
        )
        self._report(words)
        settings = configuration.settings | ({} if threads is None else {"threads": threads})
        try:
            found = self._tried(words, replace(configuration, settings=settings))
        except DidNotRunError as error:
            if error.mendable and error.raised is not None:
                raise error.raised from error
            found = _Run(Try(configuration=words, settings=settings, failed=error.words), failure=error)
        self._runs.append(found)
        return found

    def _tried(self, words: str, configuration: Configuration) -> _Run:
        try:
            prepared = self._adapter.prepare(self._path, configuration, self._cache)
        except ArtifactError as error:
            raise DidNotRunError("refused", error.what, error) from error
        cold = prepared.path not in self._seen
        if cold:
            forget_files(prepared.path)
            self._seen.add(prepared.path)
        with ModelProcess(self._adapter.name, prepared) as process:
            if process.facts.dequantized:
                raise DidNotRunError("refused", "the runtime expanded the weights, so that nothing quantized ran")
            timed = [_time(process, load) for load in self._target.loads]
            took = process.resources()
            result = Try(
                configuration=words,
                settings=configuration.settings,
                speeds=tuple(speed for speed, _ in timed),
                load_seconds=process.load_seconds,
                cold=cold,
                resources=took,
            )
            return _Run(result, prepared, process.facts, sum(seconds for _, seconds in timed), took.peak_bytes or 0)

    def result(self) -> Heat:
        """All tries, the fastest marked."""
        fastest = self.fastest
        tries = tuple(
            one.result.model_copy(update={"chosen": True}) if one is fastest else one.result for one in self._runs
        )
        if fastest is None:
            failures = [one.failure for one in self._runs if one.failure is not None]
            return Heat(tries, None, None, 0.0, 0, failures[-1] if failures else None)
        return Heat(tries, fastest.prepared, fastest.facts, fastest.seconds, fastest.peak_bytes, None)

    def _pace(self, run: _Run) -> float:
        return pace(run.result.speeds, self._target.phase) if run.prepared is not None else 0.0


def _time(timed: Timed, load: TargetLoad) -> tuple[Speed, float]:
    """Best speeds of a load after a warm-up, and the seconds of one run."""
    timed.time(load)
    begin = time.monotonic()
    samples: list[Sample] = []
    while not samples or (len(samples) < RUNS and time.monotonic() - begin < _SECONDS):
        samples.append(timed.time(load))
    return best(samples), (time.monotonic() - begin) / len(samples)
