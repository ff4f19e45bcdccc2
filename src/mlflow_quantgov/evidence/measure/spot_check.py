"""Measure drawn items of a task evaluation again: the parent from the archive, the quantized version from the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import ArtifactError, EvidenceError, MissingExtraError, UsageError
from mlflow_quantgov.evidence.drawing import Item, drawn, places_of
from mlflow_quantgov.evidence.measure.archive import open_store, restore
from mlflow_quantgov.evidence.measure.archive.scratch import held_folder
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.lm_eval_adapter import check_installed, documents
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance
from mlflow_quantgov.evidence.measure.shipped_tasks import find_tasks
from mlflow_quantgov.evidence.measure.spot_check_side import Again as SideAgain
from mlflow_quantgov.evidence.measure.spot_check_side import Asked, ask_again, open_as_recorded, recorded_limit
from mlflow_quantgov.evidence.measure.task_eval_pairs import answer_of, room_for
from mlflow_quantgov.evidence.measure.tasks import TaskFile
from mlflow_quantgov.evidence.predicates import (
    Again,
    CheckedItem,
    CheckedTask,
    Provenance,
    Shape,
    SpotCheck,
    TaskEval,
)
from mlflow_quantgov.evidence.tolerances import asks_alike, machine_words
from mlflow_quantgov.flavor.layout import sole_model_file

SCRATCH = "quantgov-spot-check-"


@dataclass(frozen=True)
class Drawing:
    """The evaluation that is checked, and what decides which of its items are."""

    evaluation: TaskEval
    digest: str
    """Of its statement."""
    seed: str
    drawn_by: Literal["gate", "checker"]
    items: int


@dataclass(frozen=True)
class Bytes:
    """Where both models lie."""

    quantized: Path
    quantized_weights: str
    """Computed from the files as they lie here."""
    parent_manifest: str
    """Digest under which the parent was archived."""
    store: str | None
    """Archive; None for `QUANTGOV_ARCHIVE`."""


def spot_check(
    drawing: Drawing,
    models: Bytes,
    tasks: Path | None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SpotCheck:
    """Measure the drawn items again; no answer is taken from an earlier run.

    First the drawn items alone. What then differs where it must not is asked once more among the neighbours that it had in its
    batch: these may decide a last digit, and a last digit a near tie.

    Args:
        drawing: What is checked.
        models: Where both models lie.
        tasks: Folder of the task files; None for tasks that lm-eval ships. Their Python code runs on this machine.
        cache: Folder for converted twins of the quantized version.
        progress: Called with a message and a fraction from 0 to 1.

    Returns:
        What came out. Where the bytes are not in the archive or the runtime is not here, `problem` says so.

    Raises:
        UsageError: The task files are missing or others, or no archive is named.
        TamperingError: The archive is damaged.
        MissingExtraError: lm-eval is not installed.
    """
    check_installed(online=tasks is None)
    evaluation, report = drawing.evaluation, progress or (lambda message, fraction: None)
    if evaluation.provenance.imported:
        return _nothing(drawing, "the evaluation was made elsewhere, so nobody saw these bytes run")
    if models.quantized_weights != evaluation.quantized.weights:
        return _nothing(drawing, "the evaluation is of other weights than this version's")
    files = _task_files(evaluation, tasks)
    opened = open_store(models.store)
    with ExitStack() as held:
        try:
            right = Asked("quantized", models.quantized, evaluation.quantized, cache / "twins" if cache else None)
            right.adapter()  # before gigabytes are restored
            opened.manifest(models.parent_manifest)
        except (ArtifactError, UsageError, MissingExtraError) as error:
            return _nothing(drawing, error.what)
        scratch = held.enter_context(held_folder(Path(tempfile.gettempdir()), SCRATCH))
        folder = scratch / "restored"
        restore(models.parent_manifest, models.store, folder, progress=lambda said, part: report(said, part * 0.2))
        if build_manifest(folder).weights_digest != evaluation.parent.weights:
            return _nothing(drawing, "the archived parent is not the one that was evaluated")
        left = Asked("parent", sole_model_file(folder) or folder, evaluation.parent, scratch / "twins")
        try:
            return _both(drawing, files, left, right, report, store=opened.url, manifest_digest=models.parent_manifest)
        except _NotLoadedError as error:
            return _nothing(drawing, error.what)


class _NotLoadedError(ArtifactError):
    """A side does not load here, in the runtime in which it was evaluated."""


def _both(
    drawing: Drawing, files: list[TaskFile], left: Asked, right: Asked, report: Progress, **archived: Any
) -> SpotCheck:
    evaluation = drawing.evaluation
    made = provenance("lm-eval", "datasets", *RUNTIME_LIBRARIES)
    machine = machine_words(this_machine())
    there = _counts(evaluation, files)
    places = _drawn(drawing)
    asked = [(task, number) for task, number in places if number < there[task]]
    if not asked:
        return _nothing(drawing, "none of the drawn items is in the task files", tasks=_shapes(evaluation, there, {}))
    sides = []
    for number, side in enumerate((left, right)):
        start = 0.2 + 0.4 * number
        report(f"{side.name}: {len(asked)} items to answer again", start)
        try:
            runtime = open_as_recorded(side, evaluation)
        except (ArtifactError, UsageError, MissingExtraError) as error:
            raise _NotLoadedError(error.what, why=error.why, fix=error.fix) from error
        with runtime:
            sides.append(ask_again(runtime, side, evaluation, files, asked, made, machine))
        report(side.name, start + 0.4)
    parent, quantized = sides
    shapes = _shapes(evaluation, there, parent.shapes)
    return SpotCheck.measured(
        **_about(drawing, made),
        **archived,
        parent=parent.side,
        quantized=quantized.side,
        parent_tolerance=parent.tolerance,
        quantized_tolerance=quantized.tolerance,
        asked_alike=asks_alike(evaluation, made),
        machine=machine,
        tasks=shapes,
        items=tuple(_item(place, evaluation, parent, quantized) for place in asked),
    )


def _about(drawing: Drawing, made: Provenance) -> dict[str, Any]:
    return {
        "provenance": made,
        "evaluation": drawing.digest,
        "drawn_by": drawing.drawn_by,
        "seed": drawing.seed,
        "asked_for": drawing.items,
    }


def _nothing(drawing: Drawing, problem: str, tasks: tuple[CheckedTask, ...] | None = None) -> SpotCheck:
    shapes = tasks or tuple(CheckedTask(task=one.task, recorded=Shape.of(one)) for one in drawing.evaluation.tasks)
    return SpotCheck.measured(**_about(drawing, provenance()), tasks=shapes, problem=problem[:1000])


def _drawn(drawing: Drawing) -> list[Item]:
    counts = [(task.task, len(task.items)) for task in drawing.evaluation.tasks]
    return drawn(drawing.seed, places_of(counts), drawing.items)


def _task_files(evaluation: TaskEval, tasks: Path | None) -> list[TaskFile]:
    """The very task files that were evaluated.

    Raises:
        UsageError: They are not here, or are others.
    """
    names = [task.task for task in evaluation.tasks]
    fix = "name the folder that was evaluated: quantgov spot-check URI --tasks DIR"
    try:
        found, digest = find_tasks(names if tasks is None else tasks)
    except UsageError as error:
        if tasks is not None:
            raise
        raise UsageError(
            f"The task files of {', '.join(names[:5])} are needed: lm-eval ships none of that name.",
            why="An evaluation holds the digest of its tasks, and not the tasks.",
            fix=fix,
        ) from error
    by_name = {task.name: task for task in found}
    for task in evaluation.tasks:
        mine = by_name.get(task.task)
        if (mine.digest if mine and mine.digest else digest) != task.task_digest:
            raise UsageError(
                f"The task {task.task} was evaluated with other files than those in {tasks or 'lm-eval'}.",
                why="Only the same questions can be asked again.",
                fix=fix,
            )
    return found


def _counts(evaluation: TaskEval, files: Sequence[TaskFile]) -> dict[str, int]:
    """Items that the files of each evaluated task give, under the limit of the evaluation."""
    limit = recorded_limit(evaluation)
    by_name = {task.name: task for task in files}
    found = {}
    for task in evaluation.tasks:
        count = len(documents(by_name[task.task])) if task.task in by_name else 0
        found[task.task] = min(count, limit) if limit is not None else count
    return found


def _shapes(
    evaluation: TaskEval, there: dict[str, int], ran: dict[str, tuple[str, int, bool]]
) -> tuple[CheckedTask, ...]:
    """Every task as it was recorded, and as its files give it where it was run."""
    found = []
    for task in evaluation.tasks:
        recorded = Shape.of(task)
        again = None
        if task.task in ran:
            output_type, few_shot, higher = ran[task.task]
            again = Shape(output_type=output_type, few_shot=few_shot, higher_is_better=higher, items=there[task.task])
        elif there[task.task] != recorded.items:
            again = recorded.model_copy(update={"items": there[task.task]})
        found.append(CheckedTask(task=task.task, recorded=recorded, again=again))
    return tuple(found)


def _item(place: Item, evaluation: TaskEval, parent: SideAgain, quantized: SideAgain) -> CheckedItem:
    task = next(one for one in evaluation.tasks if one.task == place[0])
    recorded = task.items[place[1]]
    left, right = parent.samples[place], quantized.samples[place]
    other = next((one.prompt for one in (left, right) if one.prompt != recorded.prompt_sha256), recorded.prompt_sha256)
    room = room_for(sum(len(one.items) for one in evaluation.tasks))
    for sample in (left, right):
        if task.metric not in sample.scores:
            raise EvidenceError(
                f"The item {recorded.id[:60]} of {task.task} has no metric {task.metric} when it is asked again.",
                why="A score that the task's files do not give cannot be compared.",
                fix="evaluate the version again, and look at the task: quantgov evaluate URI --tasks DIR --limit 2",
            )
    return CheckedItem(
        task=place[0],
        number=place[1],
        recorded=recorded,
        again=Again(
            id=recorded.id if recorded.id in {left.name, str(place[1])} else left.name or str(place[1]),
            group=left.group,
            choices=left.choices,
            prompt_sha256=other,
            parent=answer_of(left, task.metric, task.higher_is_better, room),
            quantized=answer_of(right, task.metric, task.higher_is_better, room),
            in_batch=place in parent.in_batch or place in quantized.in_batch,
        ),
    )
