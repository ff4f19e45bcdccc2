"""Attach, check, promote, report and load registered versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import no_such_file
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor import load_model as _load_verified
from mlflow_quantgov.flavor.download import local_model
from mlflow_quantgov.flavor.generation import GenerationModel
from mlflow_quantgov.gate.client import find_gate
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.production.promotion import promote as _promote
from mlflow_quantgov.versions import (
    not_registered,
    registered,
    send,
)


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
    from mlflow_quantgov.policy.matching import demanded_bits, demands_weights

    name, version = registered(local_model(uri))
    gate = find_gate() if policy is None else None
    if gate is not None:
        return gate.check(name, version, to)
    import mlflow

    chosen = load_policy(policy)
    facts = gather_client(
        mlflow.MlflowClient(),
        name,
        version,
        compares=demands_weights(chosen, name),
        least_bits=demanded_bits(chosen, name),
    )
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
