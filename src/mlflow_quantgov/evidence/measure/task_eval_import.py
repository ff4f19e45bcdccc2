"""Task evaluation from samples that lm-eval wrote elsewhere (`lm_eval ... --log_samples --output_path DIR`)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.import_files import FileOf
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.task_eval_pairs import ALL_EQUAL, all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun, read_run
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.task_eval import TaskEval
from mlflow_quantgov.evidence.statement import canonical_json, sha256_digest

_FIX = "run lm-eval again with --log_samples"
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
_RESULTS = re.compile(r"results_(?P<time>\d{4}-\d\d-\d\dT[\d.-]+)\.json")
_LOGGED = ("output_type", "num_fewshot", "metric_list", "metadata")


@dataclass(frozen=True)
class _Folder:
    """One side's output folder."""

    path: Path
    samples: dict[str, Path]
    """Task to its newest file of samples."""
    results: dict[str, Any]
    """The newest summary file, {} where there is none."""

    def config(self, task: str) -> dict[str, Any]:
        """The task's configuration as lm-eval logged it."""
        found = self.results.get("configs", {}).get(task)
        return found if isinstance(found, dict) else {}


def from_lm_eval_samples(
    parent_dir: Path,
    quantized_dir: Path,
    *,
    parent_weights: str,
    quantized_weights: str,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
) -> TaskEval:
    """Pair what lm-eval wrote for two models. Nobody here saw those bytes run, so the statement says `imported`.

    Args:
        parent_dir: Output folder of the parent's run, with `samples_TASK_TIME.jsonl` and `results_TIME.json` anywhere
            below it.
        quantized_dir: The same for the quantized model.
        parent_weights: Weights digest of the parent, as claimed.
        quantized_weights: Weights digest of the quantized model, as claimed.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the first one.

    Raises:
        UsageError: A folder holds no samples, a file does not read, or a task is missing on one side.
        EvidenceError: The two sides were not asked the same questions.
    """
    left, right = _open(parent_dir), _open(quantized_dir)
    if left.samples.keys() != right.samples.keys():
        only = ", ".join(sorted(left.samples.keys() ^ right.samples.keys()))
        raise UsageError(
            f"Only one side holds samples of {only}.",
            why="A task that one side did not run cannot be compared, and must not be dropped silently.",
            fix="run the same --tasks on both models",
        )
    results = []
    for task in sorted(left.samples):
        config = left.config(task)
        runs = [_run(folder, task) for folder in (left, right)]
        capability = (capabilities or {}).get(task) or _metadata(config, "capability")
        metric = (metrics or {}).get(task)
        digest = sha256_digest(canonical_json(json.loads(json.dumps(config, default=str))))
        results.append(pair(*runs, digest=digest, capability=capability, metric=metric, imported=True))
    return TaskEval.measured(
        provenance=provenance(imported=True),
        parent=_side(parent_weights, left),
        quantized=_side(quantized_weights, right),
        settings={"imported": True, **{name: left.results.get(name) for name in ("chat_template_sha", "date")}},
        tasks=tuple(results),
        warnings=(ALL_EQUAL,) if all(all_equal(one) for one in results) else (),
    )


def _open(folder: Path) -> _Folder:
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist.", why="There are no samples to read.", fix=f"ls {folder.parent}")
    samples: dict[str, tuple[str, Path]] = {}
    summaries: list[tuple[str, Path]] = []
    for path in sorted(folder.rglob("*.json*")):
        if (match := _SAMPLES.fullmatch(path.name)) is not None:
            samples[match["task"]] = max(samples.get(match["task"], ("", path)), (match["time"], path))
        elif (match := _RESULTS.fullmatch(path.name)) is not None:
            summaries.append((match["time"], path))
    if not samples:
        raise UsageError(
            f"{folder} holds no samples of lm-eval.",
            why="A verdict is computed item by item.",
            fix=f"lm_eval run ... --log_samples --output_path {folder}",
        )
    summary = FileOf(max(summaries)[1], _FIX).document() if summaries else {}
    return _Folder(folder, {task: path for task, (_, path) in samples.items()}, summary)


def _run(folder: _Folder, task: str) -> TaskRun:
    config = folder.config(task)
    higher = folder.results.get("higher_is_better", {}).get(task) or {}
    rows = list(FileOf(folder.samples[task], _FIX).rows())
    if not higher and not config.get("metric_list"):
        higher = {name: True for row in rows[:1] for name in row.get("metrics", ())}
    return read_run(task, rows, {key: config.get(key) for key in _LOGGED}, higher, _metadata(config, "group_by"))


def _metadata(config: dict[str, Any], key: str) -> str | None:
    metadata = config.get("metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def _side(weights: str, folder: _Folder) -> Side:
    """How that side was run, as its own summary says."""
    config = folder.results.get("config") or {}
    return Side(
        weights=weights,
        runtime=f"lm-eval {config.get('model', 'model')}"[:200],
        version=str(folder.results.get("lm_eval_version") or "unknown")[:200],
        twin="imported",
        settings={name: str(config[name])[:1000] for name in ("model_args", "batch_size", "limit") if config.get(name)},
    )
