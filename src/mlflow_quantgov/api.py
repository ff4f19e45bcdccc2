"""The public operations on a registered version: measure, attach, check, promote, roll back.

Each measuring function finds the version's files and its parent's, measures on this machine, and attaches the
statement: the gate takes in the bytes where there is one, and a copy goes beside the model for people to read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.errors import no_such_file
from mlflow_quantgov.evidence.calibration_data import CalibrationData
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.flavor import load_model as _load_verified
from mlflow_quantgov.flavor.download import cache_folder, local_model
from mlflow_quantgov.flavor.generation import GenerationModel
from mlflow_quantgov.gate.client import find_gate
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.production.promotion import Rollback, rollback
from mlflow_quantgov.production.promotion import promote as _promote
from mlflow_quantgov.versions import (
    attach_content,
    attach_to,
    declared_target,
    full_precision,
    not_registered,
    pair_of,
    record_of,
    registered,
    runtime_of,
    send,
    target_for,
)

Progress = Callable[[str, float], None]

__all__ = [
    "Rollback",
    "archive",
    "assess_calibration",
    "attach",
    "benchmark",
    "check",
    "confirm_kernels",
    "drill",
    "evaluate",
    "load_model",
    "measure_fidelity",
    "promote",
    "report",
    "restore",
    "rollback",
]


def evaluate(
    uri: str,
    tasks: str | Path,
    *,
    runtime: str | None = None,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
    limit: int | None = None,
    settings: dict[str, Any] | None = None,
    served: tuple[str | Path, str | Path] | None = None,
    progress: Progress | None = None,
) -> Statement:
    """Run a folder of lm-eval tasks on both sides, item by item, and attach the result.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        tasks: Folder of lm-eval task YAML; its Python code runs on this machine.
        runtime: Runtime for both sides; None for the target's.
        capabilities: Task name to capability, for tasks that do not say.
        metrics: Task name to metric, where not the first one.
        limit: Use only the first items of each task.
        settings: Runtime and generation settings, equal on both sides.
        served: Descriptions of the endpoints that serve the parent and the quantized version, instead of running the
            files here. Which bytes they run cannot be seen, so the evidence is labelled `imported`.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: The folder does not exist or holds no tasks.
        UnreachableError: An endpoint does not answer.
        MissingExtraError: lm-eval or the runtime is not installed.
    """
    from mlflow_quantgov.evidence.measure import task_eval

    pair = pair_of(uri)
    parent, quantized = served or (pair.parent.artifact, pair.quantized.artifact)
    found = task_eval.evaluate(
        Path(parent),
        Path(quantized),
        parent_weights=pair.parent_weights,
        quantized_weights=pair.quantized_weights,
        tasks=Path(tasks),
        runtime="openai" if served else runtime or runtime_of(pair),
        settings=settings or {},
        capabilities=capabilities,
        metrics=metrics,
        limit=limit,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(pair.quantized, pair.quantized_weights, found)


def measure_fidelity(
    uri: str, text: str | Path, *, runtime: str | None = None, progress: Progress | None = None
) -> Statement:
    """Measure KL divergence, same-top-token rate and perplexity against the parent, and attach the result.

    Args:
        uri: The quantized version.
        text: Text or JSONL file with production-like documents.
        runtime: Runtime for both sides; None for the target's.
        progress: Called with a message and a fraction from 0 to 1.
    """
    from mlflow_quantgov.evidence.measure import fidelity

    pair = pair_of(uri)
    found = fidelity.measure(
        pair.parent.artifact,
        pair.quantized.artifact,
        text=Path(text),
        parent_weights=pair.parent_weights,
        quantized_weights=pair.quantized_weights,
        runtime=runtime or runtime_of(pair),
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(pair.quantized, pair.quantized_weights, found)


def assess_calibration(
    uri: str,
    data: str | Path | CalibrationData,
    production: str | Path | None = None,
    *,
    source: str | None = None,
    license: str | None = None,
) -> Statement:
    """Record which data calibrated a version and how like production it is, and attach the result.

    Args:
        uri: The quantized version.
        data: Text or JSONL file with what the quantizer saw, or a `Calibration` that says the rest too.
        production: A sample of production traffic in the same form.
        source: Where the data came from, in words.
        license: Its licence.

    Raises:
        UsageError: A file does not exist or holds no documents.
    """
    if isinstance(data, CalibrationData):
        return assess_calibration(
            uri, data.data, data.production or production, source=data.source or source, license=data.license or license
        )
    from mlflow_quantgov.evidence.measure import calibration

    model = local_model(uri)
    sample = Path(production) if production is not None else None
    found = calibration.assess(Path(data), sample, source=source, license=license)
    return attach_content(model, model.manifest().weights_digest, found)


def confirm_kernels(
    uri: str, target: str | Path | Target | None = None, *, progress: Progress | None = None
) -> Statement:
    """Look up which kernel serves a version on its target, probe the runtime here, and attach the result."""
    from mlflow_quantgov.evidence.measure import kernels

    model = local_model(uri)
    facts = model.facts()
    found = kernels.confirm(
        model.artifact,
        facts.quantization,
        target_for(model, target),
        weights=facts.weights,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(model, facts.weights, found)


def benchmark(
    uri: str, target: str | Path | Target | None = None, *, rounds: int = 5, progress: Progress | None = None
) -> Statement:
    """Time a version against its parent on this machine at the target's loads, and attach the result."""
    from mlflow_quantgov.evidence.measure import benchmark as measure

    pair = pair_of(uri)
    found = measure.run(
        pair.parent.artifact,
        pair.quantized.artifact,
        target_for(pair.quantized, target),
        parent_weights=pair.parent_weights,
        quantized_weights=pair.quantized_weights,
        rounds=rounds,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(pair.quantized, pair.quantized_weights, found)


def archive(uri: str, store: str | None = None) -> Statement:
    """Archive the full-precision parent of a version (or the version itself, if it is one) and attach the proof.

    Args:
        uri: A quantized version or a parent.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
    """
    from mlflow_quantgov.evidence.measure import archive as measure

    parent = full_precision(uri)
    manifest = parent.manifest()
    found = measure.archive(parent.artifact, manifest, store)
    return attach_content(attach_to(uri, parent), manifest.weights_digest, found)


def drill(uri: str, store: str | None = None, *, prompt: str = "The capital of France is") -> Statement:
    """Restore the archived parent, verify every digest, load it and have it answer; attach what happened.

    Args:
        uri: A quantized version or a parent.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
        prompt: What the restored model has to answer.
    """
    from mlflow_quantgov.evidence.measure import drill as measure

    parent = full_precision(uri)
    manifest = parent.manifest()
    target = declared_target(parent)
    found = measure.drill(
        manifest.digest,
        store,
        runtime=target.runtime if target else None,
        prompt=prompt,
        cache=cache_folder(),
    )
    return attach_content(attach_to(uri, parent), manifest.weights_digest, found)


def restore(uri: str, folder: Path, store: str | None = None) -> Manifest:
    """Bring the archived parent of a version back into a new folder, every digest verified.

    Args:
        uri: A quantized version or a parent.
        folder: Folder to create.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
    """
    from mlflow_quantgov.evidence.measure import archive as measure

    record = record_of(local_model(uri))
    digest = record.parent["manifest"] if record and record.parent else local_model(uri).manifest().digest
    return measure.restore(digest, store, folder)


def report(uri: str, output: Path, to: str = "@champion") -> Decision:
    """Write the report of a version as one self-contained HTML file, and return the decision that it shows.

    Args:
        uri: Registered version.
        output: HTML file to write.
        to: Destination that the report judges.
    """
    import mlflow

    from mlflow_quantgov.gate.facts import gather_client
    from mlflow_quantgov.pages.report import render_report

    name, version = registered(local_model(uri))
    # A reviewer looks at the layers first, whatever level the policy demands.
    facts = gather_client(mlflow.MlflowClient(), name, version, compares=True)
    decision = check(uri, to)
    output.write_text(render_report(facts, decision, title=f"{name} version {version}"), encoding="utf-8")
    return decision


def attach(uri: str, statement: str | Path | bytes | Statement) -> dict[str, Any]:
    """Attach a statement that was made elsewhere.

    Raises:
        EvidenceError: It is malformed, about other bytes, or its summary is not what its records give.
    """
    from mlflow_quantgov.evidence.statement import parse_statement

    model = local_model(uri)
    if isinstance(statement, str | Path):
        path = Path(statement)
        if not path.is_file():
            raise no_such_file(path, "Nothing was attached.")
        statement = parse_statement(path.read_bytes(), where=path.name)
    elif isinstance(statement, bytes):
        statement = parse_statement(statement)
    return send(model, statement)


def check(uri: str, to: str, policy: str | Path | None = None) -> Decision:
    """The decision, before asking for it, by the very engine that the gate runs.

    Args:
        uri: Registered version.
        to: `@alias` or a stage.
        policy: A policy file to ask "what if"; None for the gate's own, or the default policy where nothing is gated.
    """
    from mlflow_quantgov.gate.facts import gather_client
    from mlflow_quantgov.policy.engine import decide
    from mlflow_quantgov.policy.loader import load_policy
    from mlflow_quantgov.policy.matching import demands_weights

    name, version = registered(local_model(uri))
    gate = find_gate() if policy is None else None
    if gate is not None:
        return gate.check(name, version, to)
    import mlflow

    chosen = load_policy(policy)
    facts = gather_client(mlflow.MlflowClient(), name, version, compares=demands_weights(chosen, name))
    return decide(chosen, facts, to, what_if=True)


def promote(uri: str, to: str) -> Decision:
    """Ask the gate for a destination; where it refuses, the decision says why and nothing has changed."""
    from mlflow_quantgov.flavor.download import find_version

    version = find_version(uri)
    if version is None:
        raise not_registered(uri)
    return _promote(version.name, str(version.version), to)


def load_model(model_uri: str, dst_path: str | None = None, verify: bool = True) -> GenerationModel:
    """Load a model after checking every digest, and through a protected alias or stage its approval too.

    Args:
        model_uri: Any URI that MLflow reads.
        dst_path: Folder to download to; None for this package's cache.
        verify: False loads whatever is there.

    Raises:
        TamperingError: A file is not the one that was logged, or not the one that was approved.
        UsageError: The alias or stage is protected, and the gate has not approved this version there.
    """
    if not verify:
        return _load_verified(model_uri, dst_path=dst_path, verify=False)
    from mlflow_quantgov.production.approval import require_approval

    approved = require_approval(model_uri)
    return _load_verified(model_uri, dst_path=dst_path, approved=approved)
