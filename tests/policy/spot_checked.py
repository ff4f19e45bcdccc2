"""An evaluation on a CPU, and spot-checks of it."""

from __future__ import annotations

from typing import Any

from releases import MODEL, PARENT, provenance, side, task_eval

from mlflow_quantgov.evidence.drawing import drawn, places_of
from mlflow_quantgov.evidence.predicates import (
    Again,
    Answer,
    CheckedItem,
    CheckedTask,
    Shape,
    SpotCheck,
    TaskEval,
    TaskItem,
)
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.tolerances import MACHINE, asks_alike, tolerance

PROCESSOR = {"processor": "CPU", "id": None, "instruction_sets": [], "accelerator": None}
SEED = "5" * 64
CPU = {"device": "cpu", "threads": 2}


def on_cpu(tasks: Any = None, **changes: Any) -> TaskEval:
    """An evaluation that has to repeat bit by bit on this made-up processor."""
    values: dict[str, Any] = {
        "settings": {MACHINE: PROCESSOR, "limit": None},
        "parent": side(PARENT, settings=CPU),
        "quantized": side(MODEL, settings=CPU),
    }
    return task_eval(tasks, **(values | changes))


def same(item: TaskItem, **changes: Any) -> Again:
    """The item asked again, with the same answers."""
    values = {
        "id": item.id,
        "group": item.group,
        "choices": item.choices,
        "prompt_sha256": item.prompt_sha256,
        "parent": item.parent,
        "quantized": item.quantized,
    }
    return Again(**(values | changes))


def other(answer: Answer) -> Answer:
    """The opposite score, and another text."""
    return answer.model_copy(update={"score": 1.0 - answer.score, "output": "something else"})


def spot_check(evaluation: TaskEval, digest: str = "", *, items: int = 20, flips: int = 0, **changes: Any) -> SpotCheck:
    """Drawn items asked again; so many of them now score otherwise for the quantized version."""
    made = changes.pop("provenance", None) or provenance()
    machine = changes.pop("machine", PROCESSOR)
    seed = changes.pop("seed", SEED)
    now = {"parent": side(PARENT, settings=CPU), "quantized": side(MODEL, settings=CPU)}
    now |= {name: changes.pop(name) for name in ("parent", "quantized") if name in changes}
    counts = [(task.task, len(task.items)) for task in evaluation.tasks]
    tasks = {task.task: task for task in evaluation.tasks}
    asked = []
    for number, (task, place) in enumerate(drawn(seed, places_of(counts), items)):
        item = tasks[task].items[place]
        again = same(item, quantized=other(item.quantized)) if number < flips else same(item)
        asked.append(CheckedItem(task=task, number=place, recorded=item, again=again))
    shapes = [Shape.of(task) for task in evaluation.tasks]
    values: dict[str, Any] = {
        "provenance": made,
        "evaluation": digest or Statement.about(MODEL, evaluation, name="m").digest,
        "drawn_by": "gate",
        "seed": seed,
        "asked_for": items,
        **now,
        "parent_tolerance": tolerance(evaluation, evaluation.parent, now["parent"], made, machine),
        "quantized_tolerance": tolerance(evaluation, evaluation.quantized, now["quantized"], made, machine),
        "asked_alike": asks_alike(evaluation, made),
        "machine": machine,
        "tasks": tuple(
            CheckedTask(task=name, recorded=shape, again=shape) for (name, _), shape in zip(counts, shapes, strict=True)
        ),
        "items": tuple(asked),
    }
    return SpotCheck.measured(**(values | changes))
