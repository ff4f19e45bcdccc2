"""One side of a spot-check: loaded as it was recorded, and asked the drawn items again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeAdapter
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.artifact.runtimes.settings import usable_cores
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.drawing import Item
from mlflow_quantgov.evidence.measure.lm_eval_adapter import Run, run_tasks
from mlflow_quantgov.evidence.measure.provenance import side as record_side
from mlflow_quantgov.evidence.measure.task_eval_pairs import answer_of, room_for
from mlflow_quantgov.evidence.measure.task_eval_runs import Sample, TaskRun, read_run
from mlflow_quantgov.evidence.measure.tasks import TaskFile
from mlflow_quantgov.evidence.predicates import Answer, Provenance, Side, TaskEval, Tolerance
from mlflow_quantgov.evidence.predicates.spot_check_summary import is_equal
from mlflow_quantgov.evidence.tolerances import tolerance

_NO_SETTINGS = frozenset({"self", "path", "cache"})
"""Other arguments of `RuntimeAdapter.open`; an evaluation may record anything."""


@dataclass(frozen=True)
class Asked:
    """One side, and how it was recorded."""

    name: str
    """`parent` or `quantized`."""
    model: Path
    recorded: Side
    twins: Path | None
    """Folder for converted twins."""

    def adapter(self) -> RuntimeAdapter:
        """The runtime in which it was evaluated.

        Raises:
            ArtifactError: It does not load such files here.
            UsageError: There is no such runtime.
        """
        return runtime_for(self.model, preferred=self.recorded.runtime)


@dataclass(frozen=True)
class Again:
    """What one side answered now."""

    side: Side
    tolerance: Tolerance
    samples: dict[Item, Sample]
    in_batch: frozenset[Item]
    """Items that were asked once more among their usual neighbours."""
    shapes: dict[str, tuple[str, int, bool]]
    """Task to its kind of output, few-shot examples, and whether a higher score is better."""


def recorded_limit(evaluation: TaskEval) -> int | None:
    """How many first items of each task were evaluated; None for all, and where what was recorded is no such number."""
    limit = evaluation.settings.get("limit")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1 else None


def open_as_recorded(asked: Asked, evaluation: TaskEval) -> Runtime:
    """Load a side under the settings that were recorded, as far as this machine has them.

    Raises:
        ArtifactError: It does not load.
        UsageError: The runtime does not take those settings, or is none.
        MissingExtraError: The runtime's library is not installed.
    """
    adapter, settings = asked.adapter(), evaluation.settings.get("settings")
    given: dict[str, Any] = dict(settings) if isinstance(settings, Mapping) else {}
    if not _NO_SETTINGS.isdisjoint(given):
        raise UsageError(
            f"The evaluation records a setting {min(_NO_SETTINGS & given.keys())!r}, which no runtime has.",
            why="It names what is loaded, and not how it runs.",
            fix="evaluate the version again: quantgov evaluate URI --tasks DIR",
        )
    threads = asked.recorded.settings.get("threads")
    # More threads than cores wait for each other for ages.
    if adapter.takes_threads and isinstance(threads, int) and 1 <= threads <= usable_cores():
        given["threads"] = threads
    elif adapter.takes_threads:
        given.pop("threads", None)
    return adapter.open(asked.model, cache=asked.twins, **given)


def ask_again(
    runtime: Runtime,
    asked: Asked,
    evaluation: TaskEval,
    files: Sequence[TaskFile],
    places: Sequence[Item],
    made: Provenance,
    machine: Mapping[str, Any],
) -> Again:
    """Ask a loaded side the drawn items, and what differs once more among its neighbours.

    Args:
        runtime: The loaded side.
        asked: How it was recorded.
        evaluation: The evaluation.
        files: Every task of its folder, in the order in which they were run.
        places: The drawn items.
        made: Libraries of now.
        machine: Processor of now.
    """
    facts = runtime.facts()
    now = record_side(asked.recorded.weights, facts, asked.model)
    allowed = tolerance(evaluation, asked.recorded, now, made, machine)
    chosen: dict[str, list[int]] = {}
    for task, number in places:
        chosen.setdefault(task, []).append(number)
    mine = [one for one in files if one.name in chosen]
    runs = _run(runtime, mine, Run(chosen=chosen))
    samples = _samples(runs, places)
    pending = _differing(asked.name, evaluation, samples, allowed)
    again = frozenset(pending)
    for one in dict.fromkeys((recorded_limit(evaluation), None)):
        if not pending:
            break
        # Under a limit, answers may have come from an earlier run without one, whose batches were others.
        found = _samples(_run(runtime, list(files), Run(limit=one, only=frozenset(pending))), pending)
        samples |= found
        pending = _differing(asked.name, evaluation, found, allowed)
    return Again(now, allowed, samples, again, {task: _shape(evaluation, task, run) for task, run in runs.items()})


def _run(runtime: Runtime, files: list[TaskFile], run: Run) -> dict[str, TaskRun]:
    raw = run_tasks(runtime, files, run, lambda fraction: None)
    return {
        task.name: read_run(
            task.name, raw[task.name].samples, raw[task.name].config, raw[task.name].higher_is_better, task.group_by
        )
        for task in files
    }


def _samples(runs: Mapping[str, TaskRun], places: Sequence[Item]) -> dict[Item, Sample]:
    by_number = {task: {one.number: one for one in run.samples} for task, run in runs.items()}
    return {(task, number): by_number[task][number] for task, number in places}


def _differing(name: str, evaluation: TaskEval, samples: Mapping[Item, Sample], allowed: Tolerance) -> list[Item]:
    """Items that were asked something else (few-shot examples may be drawn along the items), or answered otherwise."""
    tasks = {task.task: task for task in evaluation.tasks}
    room = room_for(sum(len(task.items) for task in evaluation.tasks))
    found = []
    for place, sample in samples.items():
        task = tasks[place[0]]
        item = task.items[place[1]]
        recorded: Answer = getattr(item, name)
        if sample.prompt != item.prompt_sha256 or task.metric not in sample.scores:
            found.append(place)
        elif allowed.exact:
            again = answer_of(sample, task.metric, task.higher_is_better, room)
            if not is_equal(recorded, again, allowed.logprob):
                found.append(place)
    return found


def _shape(evaluation: TaskEval, name: str, run: TaskRun) -> tuple[str, int, bool]:
    task = next(one for one in evaluation.tasks if one.task == name)
    directions = {str(metric): bool(higher) for metric, higher in run.metrics}
    return run.output_type, run.few_shot, directions.get(task.metric.split(",")[0], task.higher_is_better)
