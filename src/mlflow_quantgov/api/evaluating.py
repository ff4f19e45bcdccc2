"""Task evaluation of a registered version: run here, asked of endpoints, or taken from what others made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.download import cache_folder
from mlflow_quantgov.gate.clients.finding import find_gate
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import gate_for, gated_destinations
from mlflow_quantgov.policy.schema import Policy
from mlflow_quantgov.versions import Pair, attach_content, pair_of, registered, runtime_of, signer_of


def evaluate(
    uri: str,
    tasks: str | Path | Sequence[str],
    *,
    runtime: str | None = None,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    limit: int | None = None,
    settings: dict[str, Any] | None = None,
    served: tuple[str | Path | None, str | Path | None] | None = None,
    repeats: int | None = None,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Run lm-eval tasks on both sides, item by item, and attach the result.

    Answers are kept batch by batch: killed and called again, it goes on where it stopped and states the same.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        tasks: Folder of lm-eval task YAML, or a list of names of tasks that lm-eval ships; their Python code runs on
            this machine.
        runtime: Runtime for what is run here; None for the target's.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric; else the policy's, else the first one.
        limit: Use only the first items of each task.
        settings: Runtime and generation settings, equal on both sides.
        served: Descriptions of the endpoints that serve the parent and the quantized version, instead of running the
            files here; None in place of one runs that side here, which is recorded as a confounder. Which bytes a server
            runs cannot be seen, so the evidence is labelled `imported`.
        repeats: Items of each task that the parent answers twice (its noise floor); None for 200 where its runtime is
            not deterministic, and none where it is.
        progress: Called with a message and a fraction from 0 to 1.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        UsageError: The folder does not exist or holds no tasks.
        UnreachableError: An endpoint does not answer.
        MissingExtraError: lm-eval or the runtime is not installed.
    """
    signer = signer_of(key)
    pair = pair_of(uri)
    found = _measure(
        pair,
        tasks,
        served,
        runtime=runtime,
        settings=settings or {},
        capabilities=capabilities,
        metrics=metrics,
        limit=limit,
        repeats=repeats,
        progress=progress,
    )
    return attach_content(pair.quantized, pair.quantized_weights, found, signer)


def run_pilot(
    uri: str,
    tasks: str | Path | Sequence[str],
    seconds: dict[str, float],
    *,
    served: tuple[str | Path | None, str | Path | None] | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> TaskEval:
    """Ask both sides the first items of each task; nothing is attached, and no answer is kept.

    Args:
        uri: The quantized version.
        tasks: As for `evaluate`.
        seconds: Takes what each task took on both sides together.
        served: As for `evaluate`.
        settings: As for `evaluate`.
        **options: `limit`, `runtime`, `capabilities`, `metrics` and `progress` of `evaluate`.
    """
    return _measure(pair_of(uri), tasks, served, settings=settings or {}, seconds=seconds, **options)


def _measure(
    pair: Pair,
    tasks: str | Path | Sequence[str],
    served: tuple[str | Path | None, str | Path | None] | None,
    *,
    runtime: str | None,
    **options: Any,
) -> TaskEval:
    from mlflow_quantgov.evidence.measure import task_eval

    left, right = (_described(one) for one in served or (None, None))
    return task_eval.evaluate(
        left or pair.parent.artifact,
        right or pair.quantized.artifact,
        parent_weights=pair.parent_weights,
        quantized_weights=pair.quantized_weights,
        tasks=Path(tasks) if isinstance(tasks, str | Path) else list(tasks),
        runtime=runtime or _runtime_here(pair),
        usual_metrics=_metrics_of_policy(pair),
        cache=cache_folder(),
        **options,
    )


def import_scores(
    uri: str,
    source: Literal["lm-eval", "inspect", "jsonl"],
    parent: str | Path,
    quantized: str | Path,
    *,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    capability: str | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Attach a task evaluation that was made elsewhere; it is labelled `imported`, since nobody saw those bytes run.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        source: `lm-eval` (folders with its samples), `inspect` (its logs) or `jsonl` (lines `{"id", "score", ...}`).
        parent: What the parent gave.
        quantized: What the quantized version gave.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the first one.
        capability: What the lines of `jsonl` measure.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        UsageError: A file does not read.
        EvidenceError: The two sides were not asked the same questions.
    """
    signer = signer_of(key)
    pair = pair_of(uri)
    weights: dict[str, Any] = {"parent_weights": pair.parent_weights, "quantized_weights": pair.quantized_weights}
    names: dict[str, Any] = {"capabilities": capabilities, "metrics": metrics}
    left, right = Path(parent), Path(quantized)
    found: TaskEval
    if source == "lm-eval":
        from mlflow_quantgov.evidence.measure.task_eval_import import from_lm_eval_samples

        found = from_lm_eval_samples(left, right, **weights, **names)
    elif source == "inspect":
        from mlflow_quantgov.evidence.measure.task_eval_inspect import from_inspect_logs

        found = from_inspect_logs(left, right, **weights, **names)
    else:
        from mlflow_quantgov.evidence.measure.task_eval_jsonl import from_jsonl

        found = from_jsonl(left, right, **weights, capability=capability or "")
    return attach_content(pair.quantized, pair.quantized_weights, found, signer)


def policy_in_force() -> Policy:
    """The gate's policy, or the default where nothing is gated."""
    gate = find_gate()
    return load_policy() if gate is None else parse_policy(gate.policy()["text"], source="the gate's policy")


def _metrics_of_policy(pair: Pair) -> dict[str, str]:
    """Task name to the metric that the policy counts, for the tasks of which it says one."""
    if pair.quantized.version is None:
        return {}
    name, _ = registered(pair.quantized)
    policy = policy_in_force()
    gates = [gate_for(policy, name, destination) for destination in gated_destinations(policy, name)]
    return {
        one.task: one.metric
        for gate in gates
        if gate is not None
        for wanted in gate.capabilities.values()
        for one in wanted.tasks
        if one.metric is not None
    }


def _described(path: str | Path | None) -> Path | None:
    """A file that describes an endpoint.

    Raises:
        UsageError: It describes none.
    """
    from mlflow_quantgov.artifact.runtimes.endpoint.description import SCHEMA, is_description

    if path is None or is_description(Path(path)):
        return None if path is None else Path(path)
    raise UsageError(
        f"{path} does not describe an endpoint.",
        why="A served model is reached by its address.",
        fix=f"write a file with `schema: {SCHEMA}`, `url: http://HOST:PORT/v1` and `model: NAME`",
    )


def _runtime_here(pair: Pair) -> str | None:
    """The target's runtime; a target that is an endpoint says nothing about what is run here."""
    found = runtime_of(pair)
    return None if found == "openai" else found
