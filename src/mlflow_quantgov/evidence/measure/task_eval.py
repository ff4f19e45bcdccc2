"""Task evaluation of both sides, item by item, in the same runtime under the same settings."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.lm_eval_adapter import BATCH, run_tasks
from mlflow_quantgov.evidence.measure.provenance import provenance, side
from mlflow_quantgov.evidence.measure.tasks import TaskFile, folder_digest, load_tasks
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.task_eval import Answer, TaskEval, TaskItem, TaskResult

MAX_OUTPUT = 20_000
Progress = Callable[[str, float], None]
Samples = dict[str, list[dict[str, Any]]]


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
        runtime: Runtime for both sides; None for the first that loads them.
        settings: Settings of the runtime (`threads`, `context`), equal on both sides.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the first one.
        limit: Only the first items of each task.
        cache: Folder in which the parent's answers are kept for the next quantized version.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: The folder does not exist, or a task has no items or no usable metric.
        EvidenceError: The sides do not pair, or a side answered nothing at all.
        MissingExtraError: lm-eval or the runtime is not installed.
    """
    report = progress or (lambda message, fraction: None)
    found, digest = load_tasks(tasks), folder_digest(tasks)
    options = {"runtime": runtime, "settings": settings or {}, "limit": limit, "batch": BATCH}
    left = _run(parent, parent_weights, found, digest, options, cache, lambda f: report("parent", f / 2))
    right = _run(quantized, quantized_weights, found, digest, options, cache, lambda f: report("quantized", 0.5 + f / 2))
    results = tuple(
        _pair(task, digest, left[1][task.name], right[1][task.name], capabilities or {}, metrics or {}) for task in found
    )
    warnings = [
        f"All answers to {task.task} are equal on both sides: was the quantization engaged?"
        for task in results
        if all(one.parent.output == one.quantized.output and one.parent.logprobs == one.quantized.logprobs for one in task.items)
    ]
    return TaskEval.measured(
        provenance=provenance("lm-eval", "datasets", "xllamacpp", "transformers", "torch"),
        parent=left[0],
        quantized=right[0],
        settings={"greedy": True, "chat_template": "model's own, for tasks that generate", **options},
        tasks=results,
        warnings=tuple(warnings),
    )


def _run(
    model: Path,
    weights: str,
    tasks: list[TaskFile],
    digest: str,
    options: dict[str, Any],
    cache: Path | None,
    progress: Callable[[float], None],
) -> tuple[Side, Samples]:
    """One side's samples, from the cache where the very same run was made before on this machine."""
    adapter = runtime_for(model, preferred=options["runtime"])
    with adapter.open(model, cache=cache / "twins" if cache else None, **options["settings"]) as runtime:
        facts = runtime.facts()
        common = {key: value for key, value in options.items() if key != "limit"}
        identity = [weights, digest, facts.runtime, facts.version, facts.settings, common]
        samples = _kept(cache, identity, options["limit"])
        if samples is None:
            raw = run_tasks(runtime, tasks, limit=options["limit"], batch=options["batch"], progress=progress)
            samples = {name: [_slim(one) for one in many] for name, many in raw.items()}
            _keep(cache, identity, options["limit"], samples)
    progress(1.0)
    return side(weights, facts), samples


def _kept(cache: Path | None, identity: list[Any], limit: int | None) -> Samples | None:
    """Answers of the same run, or the first ones of the same run without a limit."""
    for made_with in dict.fromkeys((limit, None)):
        path = _answers(cache, identity, made_with)
        if path is not None and path.is_file():
            samples: Samples = json.loads(path.read_text(encoding="utf-8"))
            return {name: many[:limit] for name, many in samples.items()}
    return None


def _keep(cache: Path | None, identity: list[Any], limit: int | None, samples: Samples) -> None:
    """Keep answers for the next quantized version; the file appears whole or not at all."""
    path = _answers(cache, identity, limit)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.part")
    scratch.write_text(json.dumps(samples), encoding="utf-8")
    scratch.replace(path)


def _answers(cache: Path | None, identity: list[Any], limit: int | None) -> Path | None:
    if cache is None:
        return None
    key = json.dumps([identity, limit], sort_keys=True)
    return cache / "answers" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _slim(sample: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one of lm-eval's samples."""
    prompt = json.dumps(sample["arguments"], sort_keys=True, default=str)
    answers = [response[0] for response in sample["resps"]]
    generated = bool(answers) and isinstance(answers[0], str)
    scores = {name: sample[name] for name in sample.get("metrics", ()) if isinstance(sample.get(name), int | float)}
    return {
        "id": str(sample["doc"].get("id", sample["doc_id"])),
        "doc": {key: value for key, value in sample["doc"].items() if isinstance(value, str | int)},
        "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
        "output": answers[0][:MAX_OUTPUT] if generated else None,
        "logprobs": None if generated else [float(answer[0]) for answer in answers],
        "scores": {name: float(value) for name, value in scores.items()},
    }


def _pair(
    task: TaskFile,
    digest: str,
    parent: Sequence[dict[str, Any]],
    quantized: Sequence[dict[str, Any]],
    capabilities: dict[str, str],
    metrics: dict[str, str],
) -> TaskResult:
    if not parent:
        raise UsageError(f"The task {task.name} has no items.", why="Nothing was measured.", fix=f"ls {task.path.parent}")
    for name, samples in (("parent", parent), ("quantized version", quantized)):
        if all(one["output"] is not None and not one["output"].strip() for one in samples):
            raise EvidenceError(
                f"The {name} answered nothing to all {len(samples)} items of {task.name}.",
                why="A model that is silent was not evaluated; nothing was attached.",
                fix="load it with mlflow_quantgov.load_model and look at an answer",
            )
    right = {one["id"]: one for one in quantized}
    if [one["prompt"] for one in parent] != [right.get(one["id"], {}).get("prompt") for one in parent]:
        raise EvidenceError(
            f"The two sides were not asked the same questions in {task.name}.",
            why="Only items that both sides answered can be compared.",
            fix="run the evaluation again",
        )
    metric, higher = _metric(task, parent[0]["scores"], metrics)
    sign = 1.0 if higher else -1.0
    items = tuple(
        TaskItem(
            id=one["id"],
            group=str(one["doc"][task.group_by]) if task.group_by and task.group_by in one["doc"] else None,
            prompt_sha256=one["prompt"],
            parent=_answer(one, metric, sign),
            quantized=_answer(right[one["id"]], metric, sign),
        )
        for one in parent
    )
    return TaskResult(
        task=task.name,
        task_digest=digest,
        capability=capabilities.get(task.name, task.capability),
        metric=metric,
        higher_is_better=higher,
        output_type=task.config.get("output_type", "generate_until"),
        few_shot=int(task.config.get("num_fewshot") or 0),
        items=items,
    )


def _answer(sample: dict[str, Any], metric: str, sign: float) -> Answer:
    logprobs = tuple(sample["logprobs"]) if sample["logprobs"] is not None else None
    return Answer(score=sign * sample["scores"][metric], output=sample["output"], logprobs=logprobs)


def _metric(task: TaskFile, scores: dict[str, float], metrics: dict[str, str]) -> tuple[str, bool]:
    """The metric that was asked for, else the first per-item, finite one that is no perplexity."""
    listed = task.config.get("metric_list") or []
    wanted = metrics.get(task.name)
    for entry in listed:
        name = str(entry.get("metric"))
        usable = name in scores and math.isfinite(scores[name]) and "perplexity" not in name
        if (wanted == name) or (wanted is None and usable):
            return name, bool(entry.get("higher_is_better", True))
    raise UsageError(
        f"The task {task.name} has no usable metric{f' {wanted!r}' if wanted else ''}.",
        why="A verdict needs one finite number per item, and no perplexity.",
        fix=f"list a per-item metric in {task.path.name}, or give --metric {task.name}=NAME",
    )
