"""Task evaluation of both sides, item by item, in the same runtime under the same settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter, RuntimeFacts
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.cache import AnswerCache
from mlflow_quantgov.evidence.measure.lm_eval_adapter import BATCH, SEED, check_installed, run_tasks
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.measure.task_eval_import import from_lm_eval_samples
from mlflow_quantgov.evidence.measure.task_eval_pairs import ALL_EQUAL, all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun, read_run
from mlflow_quantgov.evidence.measure.tasks import TaskFile, capability_of, check_names, folder_digest, load_tasks
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.task_eval import TaskEval, TaskResult

Progress = Callable[[str, float], None]
__all__ = ["evaluate", "from_lm_eval_samples"]

_CONFOUNDERS = (
    "threads",
    "context",
    "batch",
    "device",
    "engine",
    "compute_dtype",
    "kv_cache",
    "library",
    "system_info",
)
"""Settings that a runtime resolves by itself, and that must not differ between the sides."""


@dataclass(frozen=True)
class _Plan:
    """What is run, equal on both sides."""

    tasks: list[TaskFile]
    digest: str
    settings: dict[str, Any]
    limit: int | None
    cache: Path | None


@dataclass(frozen=True)
class _Answers:
    """One side, and what it answered."""

    side: Side
    runs: dict[str, TaskRun]
    kept: int
    """Tasks whose answers came from an earlier run on this machine."""
    saw_bytes: bool
    """Whether the files themselves were run here; a server of somebody else's answers for whatever it holds."""


def evaluate(
    parent: Path,
    quantized: Path,
    *,
    parent_weights: str,
    quantized_weights: str,
    tasks: Path,
    runtime: str | None = None,
    settings: dict[str, Any] | None = None,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> TaskEval:
    """Run a folder of lm-eval tasks on parent and quantized version.

    Args:
        parent: Full-precision folder or file.
        quantized: Quantized folder or file.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        tasks: Folder of lm-eval YAML; its Python code runs on this machine.
        runtime: Runtime for both sides; None for the first that loads the quantized one.
        settings: Settings of the runtime (`threads`, `context`), equal on both sides.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the first one.
        limit: Only the first items of each task.
        cache: Folder in which answers are kept, so that the parent answers once for several quantized versions.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: The folder does not exist, or a task has no items or no usable metric.
        ArtifactError: A side does not load in that runtime.
        EvidenceError: The sides do not pair, or a side answered nothing at all.
        MissingExtraError: lm-eval or the runtime is not installed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} items measures nothing.", fix="use --limit 1 or more, or leave it out")
    found = load_tasks(tasks)
    check_names(found, capabilities or {}, "--capability")
    check_names(found, metrics or {}, "--metric")
    plan = _Plan(found, folder_digest(tasks), settings or {}, limit, cache)
    report = progress or (lambda message, fraction: None)
    check_installed()
    right_adapter = runtime_for(quantized, preferred=runtime)
    left_adapter = runtime_for(parent, preferred=right_adapter.name)
    left = _answers(left_adapter, parent, parent_weights, plan, lambda f: report("parent", f / 2))
    right = _answers(right_adapter, quantized, quantized_weights, plan, lambda f: report("quantized", 0.5 + f / 2))
    results = _results(plan, left, right, capabilities or {}, metrics or {})
    return TaskEval.measured(
        provenance=provenance(
            "lm-eval", "datasets", *RUNTIME_LIBRARIES, imported=not (left.saw_bytes and right.saw_bytes)
        ),
        parent=left.side,
        quantized=right.side,
        settings=_settings(plan, right_adapter.name, left),
        tasks=results,
        warnings=tuple(_warnings(left.side, right.side, results)),
    )


def _answers(
    adapter: RuntimeAdapter, model: Path, weights: str, plan: _Plan, progress: Callable[[float], None]
) -> _Answers:
    """One side's answers, from the cache where the very same run was made before on this machine."""
    with adapter.open(model, cache=plan.cache / "twins" if plan.cache else None, **plan.settings) as runtime:
        facts = runtime.facts()
        measured = side(weights, facts, model)
        # What somebody else's server runs may change under the same name: its answers are never taken from an earlier run.
        cache = AnswerCache(plan.cache if facts.saw_bytes else None, _identity(measured, plan, facts))
        runs = {task.name: run for task in plan.tasks if (run := cache.find(task.name, plan.limit)) is not None}
        missing = [task for task in plan.tasks if task.name not in runs]
        kept = len(runs)
        if missing:
            raw = run_tasks(runtime, missing, limit=plan.limit, batch=BATCH, progress=progress)
            for task in missing:
                one = raw[task.name]
                run = read_run(task.name, one.samples, one.config, one.higher_is_better, task.group_by)
                cache.keep(run, plan.limit)
                runs[task.name] = run
        # An endpoint names its version along with its answers.
        measured = measured.model_copy(update={"version": runtime.facts().version})
    progress(1.0)
    return _Answers(measured, runs, kept, facts.saw_bytes)


def _identity(model: Side, plan: _Plan, facts: RuntimeFacts) -> list[Any]:
    """Whatever decides an answer."""
    return [
        model.weights,
        model.behaviour,
        plan.digest,
        facts.runtime,
        facts.version,
        facts.library,
        facts.settings,
        plan.settings,
        BATCH,
        SEED,
    ]


def _results(
    plan: _Plan, left: _Answers, right: _Answers, capabilities: Mapping[str, str], metrics: Mapping[str, str]
) -> tuple[TaskResult, ...]:
    items = sum(len(run.samples) for run in left.runs.values())
    return tuple(
        pair(
            left.runs[task.name],
            right.runs[task.name],
            digest=plan.digest,
            capability=capability_of(task, dict(capabilities)),
            metric=metrics.get(task.name),
            items_in_all=max(1, items),
        )
        for task in plan.tasks
    )


def _settings(plan: _Plan, runtime: str, left: _Answers) -> dict[str, Any]:
    """What was equal on both sides."""
    return {
        "runtime": runtime,
        "settings": plan.settings,
        "greedy": True,
        "chat_template": "the model's own, for tasks that generate",
        "batch": BATCH,
        "seed": SEED,
        "limit": plan.limit,
        "parent_answers": f"{left.kept} of {len(left.runs)} tasks answered in an earlier run on this machine",
    }


def _warnings(left: Side, right: Side, results: Sequence[TaskResult]) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [ALL_EQUAL] if all(all_equal(task) for task in results) else []
    found += [
        f"The {name} ran as a conversion, not proved equal."
        for name, one in _sides(left, right)
        if one.twin == "converted"
    ]
    if right.dequantized:
        found.append(f"{right.runtime} expanded the weights on loading: nothing quantized ran, so no gate counts this.")
    for key in _CONFOUNDERS:
        a, b = left.settings.get(key), right.settings.get(key)
        if key in left.settings and key in right.settings and a != b:
            found.append(f"The sides ran with different {key}: {a} and {b}.")
    return [one[:1000] for one in found]


def _sides(left: Side, right: Side) -> tuple[tuple[str, Side], ...]:
    return (("parent", left), ("quantized version", right))
