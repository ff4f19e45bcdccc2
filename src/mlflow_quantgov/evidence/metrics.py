"""The numbers of a statement that people compare, as metrics and datasets in MLflow. The gate reads none of them."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from mlflow_quantgov.evidence.predicates import Benchmark, Calibration, Fidelity, Predicate, TaskEval

_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_DIGEST_LENGTH = 36
"""MLflow keeps no longer dataset digests; the whole one stands in the dataset's source."""
_logger = logging.getLogger(__name__)


def metrics_of(content: Predicate) -> dict[str, float]:
    """Metric name to value; empty for kinds that hold nothing to compare."""
    summary = content.stated()
    if isinstance(content, TaskEval):
        return {name: value for task, one in summary.items() for name, value in _of_task(task, one).items()}
    if isinstance(content, Fidelity):
        names = ("perplexity", "parent_perplexity", "kl_mean", "same_top_rate")
        return {name: float(summary[f"quantized_{name}" if name == "perplexity" else name]) for name in names}
    if isinstance(content, Benchmark):
        found = {name: value for load in summary["loads"] for name, value in _of_load(load).items()}
        return found | ({"memory_ratio": summary["memory_ratio"]} if summary["memory_ratio"] else {})
    return {}


def datasets_of(content: Predicate) -> list[tuple[str, str, str]]:
    """Name, digest and context of the data that a measurement used."""
    if isinstance(content, TaskEval):
        return [(task.task, task.task_digest, "evaluation") for task in content.tasks]
    if isinstance(content, Fidelity):
        return [("fidelity text", content.data, "evaluation")]
    if isinstance(content, Calibration):
        production = [("production sample", content.production.digest, "production")] if content.production else []
        return [("calibration data", content.data.digest, "calibration"), *production]
    return []


def record(model_id: str, content: Predicate) -> None:
    """Log the numbers of a measurement to the active run, or to a run of their own, linked to the LoggedModel.

    A tracking server that does not take them is only warned about: what counts has been attached before.

    Args:
        model_id: LoggedModel (`m-...`) that was measured.
        content: What was measured.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    metrics, datasets = metrics_of(content), datasets_of(content)
    if not metrics and not datasets:
        return
    client, active = mlflow.MlflowClient(), mlflow.active_run()
    try:
        if active is not None:
            _log(client, active.info.run_id, model_id, metrics, datasets)
            return
        experiment = client.get_logged_model(model_id).experiment_id
        run_id = client.create_run(experiment, run_name=f"quantgov {content.KIND}").info.run_id
        _log(client, run_id, model_id, metrics, datasets)
        client.set_terminated(run_id)
    except MlflowException as error:
        _logger.warning("The %s statement is kept; MLflow did not take its metrics: %s", content.KIND, error)


def _log(client: Any, run_id: str, model_id: str, metrics: dict[str, float], data: list[tuple[str, str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    inputs = [
        DatasetInput(
            Dataset(name[:500], _short(digest), "quantgov", json.dumps({"digest": digest})),
            [InputTag("mlflow.data.context", context)],
        )
        for name, digest, context in data
    ]
    client.log_inputs(run_id, datasets=inputs, models=[LoggedModelInput(model_id)])
    for name, value in metrics.items():
        client.log_metric(run_id, _NOT_IN_NAMES.sub("_", name)[:250], value, model_id=model_id)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_DIGEST_LENGTH]


def _of_task(task: str, summary: dict[str, Any]) -> dict[str, float]:
    parent, quantized = summary["parent_mean"], summary["quantized_mean"]
    found = {f"{task}/parent": parent, f"{task}/quantized": quantized}
    return found | ({f"{task}/recovery": quantized / parent} if parent else {})


def _of_load(load: dict[str, Any]) -> dict[str, float]:
    where = f"batch {load['batch']} {load['prompt_tokens']} to {load['output_tokens']}"
    return {
        f"{phase} {name}/{where}": load[phase][key]
        for phase in ("prefill", "decode")
        for name, key in (("tokens per second", "quantized"), ("ratio", "ratio"))
    }
