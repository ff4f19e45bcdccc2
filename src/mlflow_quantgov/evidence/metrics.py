"""The numbers of a statement that people compare, as metrics and datasets in MLflow. The gate reads none of them."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.evidence.predicates import Benchmark, BenchmarkV1, Calibration, FidelityV1, Predicate, TaskEval

_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_DIGEST_LENGTH = 36
"""MLflow keeps no longer dataset digests."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """Data that a measurement used."""

    name: str
    digest: str
    context: str
    """What it was used for, as MLflow spells it: `evaluation`, `calibration`."""

    @property
    def short_digest(self) -> str:
        """As much of the digest as MLflow keeps; the whole one stands in the dataset's source."""
        return self.digest.removeprefix("sha256:")[:_DIGEST_LENGTH]


@dataclass(frozen=True)
class Number:
    """One number that people compare."""

    name: str
    value: float
    data: Data | None = None


def numbers_of(content: Predicate) -> list[Number]:
    """What is compared between versions; empty for kinds that hold nothing of that kind."""
    summary = content.stated()
    if isinstance(content, TaskEval):
        return [
            Number(f"{data.name}/{name}", value, data)
            for data in data_of(content)
            for name, value in _of_task(summary[data.name]).items()
        ]
    if isinstance(content, FidelityV1):
        (data,) = data_of(content)
        names = {"quantized_perplexity": "perplexity", "parent_perplexity": "parent_perplexity"}
        names |= {key: key for key in ("kl_mean", "kl_p99", "same_top_rate")}
        return [Number(name, summary[key], data) for key, name in names.items() if key in summary]
    if isinstance(content, Benchmark | BenchmarkV1):
        memory = summary["memory_ratio"]
        found = [Number("memory_ratio", memory)] if memory else []
        taken = summary.get("memory", {}).get("quantized")
        found += [Number("memory_bytes", taken)] if taken else []
        return found + [number for load in summary["loads"] for number in _of_load(load, len(summary["loads"]) > 1)]
    return []


def data_of(content: Predicate) -> list[Data]:
    """The data that a measurement used."""
    if isinstance(content, TaskEval):
        return [Data(task.task, task.task_digest, "evaluation") for task in content.tasks]
    if isinstance(content, FidelityV1):
        return [Data("fidelity text", content.data, "evaluation")]
    if isinstance(content, Calibration):
        production = content.production
        sample = [Data("production sample", production.digest, "production")] if production else []
        return [Data("calibration data", content.data.digest, "calibration"), *sample]
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

    numbers, data = numbers_of(content), data_of(content)
    if not numbers and not data:
        return
    client, active = mlflow.MlflowClient(), mlflow.active_run()
    try:
        if active is not None:
            _log(client, active.info.run_id, model_id, numbers, data)
            return
        experiment = client.get_logged_model(model_id).experiment_id
        run_id = client.create_run(experiment, run_name=f"quantgov {content.KIND}").info.run_id
        _log(client, run_id, model_id, numbers, data)
        client.set_terminated(run_id)
    except MlflowException as error:
        _logger.warning("The %s statement is kept; MLflow did not take its metrics: %s", content.KIND, error)


def _log(client: Any, run_id: str, model_id: str, numbers: list[Number], data: list[Data]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    inputs = [
        DatasetInput(
            Dataset(one.name[:500], one.short_digest, "quantgov", json.dumps({"digest": one.digest})),
            [InputTag("mlflow.data.context", one.context)],
        )
        for one in data
    ]
    client.log_inputs(run_id, datasets=inputs, models=[LoggedModelInput(model_id)])
    for number in numbers:
        used = number.data
        client.log_metric(
            run_id,
            _NOT_IN_NAMES.sub("_", number.name)[:250],
            number.value,
            dataset_name=used.name[:500] if used else None,
            dataset_digest=used.short_digest if used else None,
            model_id=model_id,
        )


def _of_task(summary: dict[str, Any]) -> dict[str, float]:
    parent, quantized = summary["parent_mean"], summary["quantized_mean"]
    return {"parent": parent, "quantized": quantized} | ({"recovery": quantized / parent} if parent else {})


def _of_load(load: dict[str, Any], several: bool) -> list[Number]:
    where = f"/batch {load['batch']} of {load['prompt_tokens']} to {load['output_tokens']} tokens" if several else ""
    found = [
        Number(f"{phase}_{name}{where}", load[phase][key])
        for phase in ("prefill", "decode")
        for name, key in (("tokens_per_second", "quantized"), ("ratio_to_parent", "ratio"))
        if load[phase][key] is not None
    ]
    first = load.get("time_to_first_token_ms", {}).get("quantized", {}).get("p50")
    return found + ([Number(f"time_to_first_token_ms{where}", first)] if first is not None else [])
