"""Task evaluation of both sides, item by item, in the same runtime under the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.endpoint.description import is_description, read_endpoint
from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter
from mlflow_quantgov.artifact.runtimes.registry import find_runtime, runtime_for
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.confounders import confounders
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.lm_eval_adapter import BATCH, SEED, check_installed
from mlflow_quantgov.evidence.measure.lm_eval_model import Chat
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance
from mlflow_quantgov.evidence.measure.shipped_tasks import find_tasks
from mlflow_quantgov.evidence.measure.task_eval_pairs import ALL_EQUAL, all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_side import SERVED_HOURS, Answers, Asked, Work, answers_of
from mlflow_quantgov.evidence.measure.tasks import capability_of, check_names
from mlflow_quantgov.evidence.predicates.task_eval import TaskEval, TaskResult
from mlflow_quantgov.evidence.tolerances import MACHINE, machine_words


def evaluate(
    parent: Path,
    quantized: Path,
    *,
    parent_weights: str,
    quantized_weights: str,
    tasks: Path | Sequence[str],
    runtime: str | None = None,
    settings: dict[str, Any] | None = None,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    usual_metrics: dict[str, str] | None = None,
    limit: int | None = None,
    repeats: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    seconds: dict[str, float] | None = None,
) -> TaskEval:
    """Run lm-eval tasks on parent and quantized version.

    Answers are kept batch by batch: killed and run again, it goes on where it stopped.

    Args:
        parent: Full-precision folder or file, or a file that describes the endpoint which serves it.
        quantized: Quantized folder or file, or a file that describes the endpoint which serves it.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        tasks: Folder of lm-eval YAML, or names of tasks that lm-eval ships; their Python code runs on this machine.
        runtime: Runtime for what is run here; None for the first that loads the quantized one.
        settings: Settings of the runtime (`threads`, `context`), equal on both sides.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the usual one.
        usual_metrics: Task name to the usual metric (the policy's), for tasks that may not be here; else the first one.
        limit: Only the first items of each task.
        repeats: Items of each task that the parent answers twice (its noise floor); None for 200 where its runtime is not
            deterministic, and none where it is.
        cache: Folder in which answers are kept, so that the parent answers once for several quantized versions.
        progress: Called with a message and a fraction from 0 to 1.
        seconds: Takes what each task took on both sides together; each is then run alone, and no answer is taken from an
            earlier run or kept for a later one.

    Raises:
        UsageError: The folder does not exist, or a task has no items or no usable metric.
        ArtifactError: A side does not load in that runtime.
        EvidenceError: The sides do not pair, or a side answered nothing at all.
        MissingExtraError: lm-eval or the runtime is not installed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} items measures nothing.", fix="use --limit 1 or more, or leave it out")
    check_installed(online=not isinstance(tasks, Path))
    found, digest = find_tasks(tasks)
    check_names(found, capabilities or {}, "--capability")
    check_names(found, metrics or {}, "--metric")
    work = Work(found, digest, settings or {}, limit, cache, timed=seconds is not None)
    report = progress or (lambda message, fraction: None)
    right_adapter = _adapter(quantized, runtime)
    here = runtime if is_description(quantized) else right_adapter.name
    left_adapter = _adapter(parent, here)
    left = Asked("parent", left_adapter, parent, parent_weights, repeats=repeats, start=0.0)
    right = Asked("quantized", right_adapter, quantized, quantized_weights, start=0.5)
    left_answers, right_answers = _both(left, right, work, report)
    results = _results(work, left_answers, right_answers, capabilities or {}, (usual_metrics or {}) | (metrics or {}))
    if seconds is not None:
        seconds |= {name: left_answers.seconds[name] + right_answers.seconds[name] for name in left_answers.seconds}
    saw_bytes = left_answers.saw_bytes and right_answers.saw_bytes
    return TaskEval.measured(
        provenance=provenance("lm-eval", "datasets", *RUNTIME_LIBRARIES, imported=not saw_bytes),
        parent=left_answers.side,
        quantized=right_answers.side,
        settings=_settings(work, right_adapter.name, left_answers, right_answers),
        tasks=results,
        warnings=tuple(_warnings(left_answers, right_answers, results)),
    )


def _adapter(model: Path, runtime: str | None) -> RuntimeAdapter:
    """An endpoint where the file describes one, else the runtime for these files."""
    return find_runtime("openai") if is_description(model) else runtime_for(model, preferred=runtime)


def _both(left: Asked, right: Asked, work: Work, report: Progress) -> tuple[Answers, Answers]:
    """Both sides, asked in the same way: conversations are rendered by one template, or by each server's own."""
    served = [one for one in (left, right) if is_description(one.model)]
    if len(served) == 1:
        left, right = (replace(one, settings={}) if one.name == served[0].name else one for one in (left, right))
    if any(read_endpoint(one.model, {}).api == "chat" for one in served):
        # The side that runs here is asked in the same turns, and renders them by its own template.
        turns = Chat(None, by_runtime=True)
        left, right = replace(left, chat=turns), replace(right, chat=turns)
    elif len(served) == 1:
        local, other = (right, left) if served[0].name == left.name else (left, right)
        answered = answers_of(replace(local, start=0.0), work, report)
        rendered = answers_of(replace(other, chat=Chat(answered.chat_template), start=0.5), work, report)
        return (rendered, answered) if local is right else (answered, rendered)
    return answers_of(left, work, report), answers_of(right, work, report)


def _results(
    work: Work, left: Answers, right: Answers, capabilities: Mapping[str, str], metrics: Mapping[str, str]
) -> tuple[TaskResult, ...]:
    items = sum(len(run.samples) for run in left.runs.values())
    return tuple(
        pair(
            left.runs[task.name],
            right.runs[task.name],
            digest=task.digest or work.digest,
            capability=capability_of(task, dict(capabilities)),
            metric=metrics.get(task.name),
            items_in_all=max(1, items),
            again=left.again.get(task.name),
        )
        for task in work.tasks
    )


def _settings(work: Work, runtime: str, left: Answers, right: Answers) -> dict[str, Any]:
    """What was equal on both sides, and whether answers repeat."""
    return {
        "runtime": runtime,
        "settings": work.settings,
        "greedy": True,
        "chat_template": "the model's own, for tasks that generate",
        "batch": BATCH,
        "seed": SEED,
        "limit": work.limit,
        "parent_answers": f"{left.kept} of {len(left.runs)} tasks answered in an earlier run on this machine",
        MACHINE: machine_words(this_machine()),
        "determinism": {name: asdict(one.determinism) for name, one in (("parent", left), ("quantized", right))},
    }


def _warnings(left: Answers, right: Answers, results: Sequence[TaskResult]) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [ALL_EQUAL] if all(all_equal(task) for task in results) else []
    found += [
        f"The {name} ran as a conversion, not proved equal."
        for name, one in _sides(left, right)
        if one.side.twin == "converted"
    ]
    if right.side.dequantized and right.saw_bytes:
        found.append(
            f"{right.side.runtime} expanded the weights on loading: nothing quantized ran, so no gate counts this."
        )
    found += confounders(left.side, right.side)
    if left.saw_bytes != right.saw_bytes and "chat" in (left.side.settings.get("api"), right.side.settings.get("api")):
        local = left if left.saw_bytes else right
        own = "its own template" if local.chat_template else "no template, since the model that ran here has none"
        found.append(f"The server rendered the conversations by a template that cannot be seen; here it was {own}.")
    found += [
        f"{one.resumed:,} answers of the {name}'s endpoint are from a run that was stopped, at most {SERVED_HOURS} hours before; "
        "the server may have changed since."
        for name, one in _sides(left, right)
        if one.resumed and not one.saw_bytes
    ]
    if not left.determinism.deterministic and not left.again:
        found.append(
            "The parent was not asked twice, and its runtime is not deterministic: the noise floor is unknown."
        )
    return [one[:1000] for one in found]


def _sides(left: Answers, right: Answers) -> tuple[tuple[str, Answers], ...]:
    return (("parent", left), ("quantized version", right))
