"""One side of a task evaluation: what it is asked, and what it answered, from the cache where it was asked before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeAdapter, RuntimeFacts
from mlflow_quantgov.evidence.measure.cache import AnswerCache, BatchCache
from mlflow_quantgov.evidence.measure.determinism import Determinism, determinism_of
from mlflow_quantgov.evidence.measure.lm_eval_adapter import BATCH, SEED, RawRun, Run, run_tasks
from mlflow_quantgov.evidence.measure.lm_eval_model import Chat
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import side
from mlflow_quantgov.evidence.measure.task_eval_progress import Meter
from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun, read_run
from mlflow_quantgov.evidence.measure.tasks import TaskFile
from mlflow_quantgov.evidence.predicates.base import Side

REPEATED = 200
"""Items of each task that the parent answers twice where its runtime is not deterministic."""
SERVED_HOURS = 24
"""How long batches of a stopped run are taken from a server, which may change under the same name."""


@dataclass(frozen=True)
class Work:
    """What is run, equal on both sides."""

    tasks: list[TaskFile]
    digest: str
    settings: dict[str, Any]
    limit: int | None
    cache: Path | None
    timed: bool = False
    """A pilot: each task alone and timed, and no answer taken from an earlier run, or kept for a later one."""


@dataclass(frozen=True)
class Asked:
    """One side of the work."""

    name: str
    """`parent` or `quantized`, for the progress."""
    adapter: RuntimeAdapter
    model: Path
    weights: str
    chat: Chat | None = None
    """How conversations are put; None for the model's own template."""
    settings: dict[str, Any] | None = None
    """Settings of the runtime where they are not those of the work (an endpoint beside a model that runs here)."""
    repeats: int | None = 0
    """Items of each task to answer twice; None for what the runtime's determinism asks for."""
    start: float = 0.0
    share: float = 0.5
    """Where this side lies in the progress of the whole."""


@dataclass(frozen=True)
class Answers:
    """One side, and what it answered."""

    side: Side
    runs: dict[str, TaskRun]
    kept: int
    """Tasks whose answers came from an earlier run on this machine."""
    resumed: int
    """Requests whose answers came from a run that was stopped."""
    saw_bytes: bool
    """Whether the files themselves were run here; a server of somebody else's answers for whatever it holds."""
    determinism: Determinism
    chat_template: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    """What each task took, where the work was timed."""
    again: dict[str, TaskRun] = field(default_factory=dict)
    """The tasks' answers when they were asked for a second time."""


def answers_of(asked: Asked, work: Work, report: Progress) -> Answers:
    """Ask one side.

    Raises:
        ArtifactError: It does not load in that runtime.
        UsageError: A task does not run.
        UnreachableError: A server does not answer.
    """
    settings = work.settings if asked.settings is None else asked.settings
    twins = work.cache / "twins" if work.cache else None
    with asked.adapter.open(asked.model, cache=twins, **settings) as runtime:
        facts = runtime.facts()
        measured = side(asked.weights, facts, asked.model)
        known = determinism_of(facts)
        repeats = asked.repeats if asked.repeats is not None else 0 if known.deterministic else REPEATED
        share = asked.share * 0.8 if repeats else asked.share
        identity = _identity(measured, work, facts, asked.chat)
        first = _Turn(asked.name, asked.chat, asked.start, share)
        if work.timed:
            runs, seconds = _pilot(runtime, first, work, report)
            return Answers(measured, runs, 0, 0, facts.saw_bytes, known, runtime.chat_template, seconds)
        runs, kept, batches = _ask(runtime, facts, identity, first, work, report)
        again: dict[str, TaskRun] = {}
        if repeats:
            chosen = {name: _spread(len(run.samples), repeats) for name, run in runs.items()}
            second = _Turn(f"{asked.name} again", asked.chat, asked.start + share, asked.share - share, chosen)
            again, _, more = _ask(runtime, facts, [*identity, "again", repeats], second, work, report)
            more.clear()
        batches.clear()
        # An endpoint names its version along with its answers.
        measured = measured.model_copy(update={"version": runtime.facts().version})
        template = runtime.chat_template
    report(asked.name, asked.start + asked.share)
    return Answers(measured, runs, kept, batches.taken, facts.saw_bytes, known, template, again=again)


@dataclass(frozen=True)
class _Turn:
    """One time that a side is asked."""

    name: str
    chat: Chat | None
    start: float
    share: float
    chosen: dict[str, list[int]] | None = None


def _ask(
    runtime: Runtime, facts: RuntimeFacts, identity: list[Any], turn: _Turn, work: Work, report: Progress
) -> tuple[dict[str, TaskRun], int, BatchCache]:
    """Answers by task, how many tasks were kept from an earlier run, and the batches that were kept on the way."""
    # What somebody else's server runs may change under the same name: its answers are never taken from an earlier run,
    # and from one that was stopped only for a while.
    cache = AnswerCache(work.cache if facts.saw_bytes else None, identity)
    batches = BatchCache(work.cache, identity, None if facts.saw_bytes else SERVED_HOURS * 3600)
    runs = {task.name: run for task in work.tasks if (run := cache.find(task.name, work.limit)) is not None}
    missing = [task for task in work.tasks if task.name not in runs]
    kept = len(runs)
    if missing:
        meter = Meter(report, turn.name, turn.start, turn.share, batches)
        how = Run(BATCH, work.limit, turn.chosen, turn.chat, batches)
        raw = run_tasks(runtime, missing, how, meter.advance, meter.announce)
        for task in missing:
            runs[task.name] = _read(task, raw)
            cache.keep(runs[task.name], work.limit)
    return runs, kept, batches


def _pilot(runtime: Runtime, turn: _Turn, work: Work, report: Progress) -> tuple[dict[str, TaskRun], dict[str, float]]:
    """Answers by task, and the seconds that each task took."""
    runs, seconds = {}, {}
    share = turn.share / len(work.tasks)
    for number, task in enumerate(work.tasks):
        unkept = BatchCache(None, [])
        meter = Meter(report, f"pilot, {turn.name}", turn.start + number * share, share, unkept)
        before: list[float] = []

        def start(items: dict[str, int], meter: Meter = meter, before: list[float] = before) -> None:
            meter.announce(items)
            before.append(time.perf_counter())

        raw = run_tasks(runtime, [task], Run(BATCH, work.limit, chat=turn.chat), meter.advance, start)
        seconds[task.name] = time.perf_counter() - before[0]
        runs[task.name] = _read(task, raw)
    return runs, seconds


def _read(task: TaskFile, raw: Mapping[str, RawRun]) -> TaskRun:
    one = raw[task.name]
    return read_run(task.name, one.samples, one.config, one.higher_is_better, task.group_by)


def _spread(count: int, wanted: int) -> list[int]:
    """Positions of the items to ask again, evenly over the task: its data may be sorted."""
    if wanted >= count:
        return list(range(count))
    return sorted({number * count // wanted for number in range(wanted)})


def _identity(model: Side, work: Work, facts: RuntimeFacts, chat: Chat | None) -> list[Any]:
    """Whatever decides an answer."""
    how: Mapping[str, Any] = {} if chat is None else {"template": chat.template, "by_runtime": chat.by_runtime}
    return [
        model.weights,
        model.behaviour,
        work.digest,
        facts.runtime,
        facts.version,
        facts.library,
        facts.settings,
        work.settings,
        BATCH,
        SEED,
        dict(how),
    ]
