"""Attach, check, promote, report and load registered versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from mlflow_quantgov.errors import UsageError, no_such_file, short
from mlflow_quantgov.evidence.signing import NO_KEYS, Attached, TrustedKeys, parse_trusted_keys, read_attached, sign
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor import load_model as _load_verified
from mlflow_quantgov.flavor.download import local_model
from mlflow_quantgov.flavor.generation import GenerationModel
from mlflow_quantgov.gate.clients.finding import find_gate, require_gate
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.schema import CHECKS
from mlflow_quantgov.production.promotion import promote as _promote
from mlflow_quantgov.version import __version__
from mlflow_quantgov.versions import (
    not_registered,
    registered,
    send,
    signer_of,
)

MOST_WORDS = 1000
"""Characters of a waiver's reason."""


def report(uri: str, output: Path, to: str = "@champion") -> Decision:
    """Write the report of a version as one self-contained HTML file, and return the decision that it shows.

    Args:
        uri: Registered version.
        output: HTML file to write.
        to: Destination that the report judges.
    """
    import mlflow

    from mlflow_quantgov.gate.facts.gathering import gather_client
    from mlflow_quantgov.pages.report import render_report

    name, version = registered(local_model(uri))
    # A reviewer looks at the layers first, whatever level the policy demands.
    facts = gather_client(mlflow.MlflowClient(), name, version, compares=True, keys=_trusted(find_gate()))
    decision = check(uri, to)
    output.write_text(render_report(facts, decision, title=f"{name} version {version}"), encoding="utf-8")
    return decision


def attach(uri: str, statement: str | Path | bytes | Statement, *, key: str | Path | None = None) -> dict[str, Any]:
    """Attach a statement that was made elsewhere, bare or in a DSSE envelope.

    Args:
        uri: Registered version.
        statement: File, bytes, or the statement itself.
        key: Private key file to sign a bare statement with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.
            Whoever signs vouches for what it says. A statement in an envelope keeps its own signature.

    Raises:
        EvidenceError: It is malformed, about other bytes, its summary is not what its records give, or its signature does
            not fit.
    """
    signer, model = signer_of(key), local_model(uri)
    if isinstance(statement, str | Path):
        path = Path(statement)
        if not path.is_file():
            raise no_such_file(path, "Nothing was attached.")
        attached = read_attached(path.read_bytes(), where=path.name)
    else:
        attached = Attached(statement) if isinstance(statement, Statement) else read_attached(statement)
    if attached.envelope is not None and key is not None:
        raise UsageError(
            "The statement is signed already.",
            why="It is attached with its own signature; another belongs into an envelope of its own.",
            fix=f"quantgov attach {uri} ENVELOPE.json",
        )
    if signer is not None and attached.envelope is None:
        attached = Attached(attached.statement, sign(attached.statement, signer))
    return send(model, attached)


def waive(uri: str, check: str, *, reason: str, until: datetime, key: str | Path | None = None) -> dict[str, Any]:
    """Take the responsibility for one check of one version until a date; it is shown in red wherever the version is.

    Args:
        uri: Registered version.
        check: Name of the check; `identity` and `lineage` cannot be waived.
        reason: Why, in words that an auditor will read.
        until: With a time zone; from then on the waiver counts for nothing.
        key: Private key file of somebody with the role `waiver`; None for `QUANTGOV_SIGNING_KEY`.

    Raises:
        UsageError: No key, no such check, a date that has passed, or a reason that says nothing.
        EvidenceError: The server does not take it in: it trusts no such key with the role `waiver`.
        UnreachableError: Nothing is gated.
    """
    from mlflow_quantgov.evidence.predicates import Provenance, Waiver
    from mlflow_quantgov.evidence.predicates.waiver import Waivable

    if check not in get_args(Waivable):
        known = f"Waived can be {', '.join(get_args(Waivable))}."
        why = f"Nobody can take the responsibility for other bytes than those that were judged. {known}"
        raise UsageError(
            f"{short(check)} cannot be waived.",
            why=why if check in CHECKS else known,
            fix=f"quantgov check {uri} --to @champion",
        )
    if not reason.strip() or len(reason) > MOST_WORDS or until.tzinfo is None or until <= datetime.now(UTC):
        raise UsageError(
            f"A waiver needs a reason of at most {MOST_WORDS} characters, and an end that is still to come.",
            why="An exception that nobody explains, or that never ends, is a rule.",
            fix=f"quantgov waive {uri} {check} --reason 'the drill is booked for Thursday' --until DATE --key NAME.key.pem",
        )
    signer = signer_of(key)
    if signer is None:
        raise UsageError(
            "A waiver is signed, and no key was named.",
            why="Somebody with the role takes the responsibility by name.",
            fix=f"quantgov waive {uri} {check} --reason REASON --until DATE --key NAME.key.pem",
        )
    require_gate("take in a waiver")
    model = local_model(uri)
    name, version = registered(model)
    assert model.version is not None
    content = Waiver.measured(
        provenance=Provenance(measured_at=datetime.now(UTC), tool_version=__version__),
        model=name,
        version=version,
        created=int(model.version.creation_timestamp),
        check=check,
        reason=reason.strip(),
        until=until.astimezone(UTC),
    )
    statement = Statement.about(model.manifest().weights_digest, content, name=name)
    return send(model, Attached(statement, sign(statement, signer)))


def check(uri: str, to: str, policy: str | Path | None = None) -> Decision:
    """The decision, before asking for it, by the very engine that the gate runs.

    Args:
        uri: Registered version.
        to: `@alias` or a stage.
        policy: A policy file to ask "what if"; None for the gate's own, or the default policy where nothing is gated.
    """
    from mlflow_quantgov.gate.facts.gathering import gather_client
    from mlflow_quantgov.policy.engine import decide
    from mlflow_quantgov.policy.loader import load_policy
    from mlflow_quantgov.policy.matching import demanded_bits, demands_weights

    name, version = registered(local_model(uri))
    gate = find_gate()
    if gate is not None and policy is None:
        return gate.check(name, version, to)
    import mlflow

    chosen = load_policy(policy)
    facts = gather_client(
        mlflow.MlflowClient(),
        name,
        version,
        compares=demands_weights(chosen, name),
        least_bits=demanded_bits(chosen, name),
        keys=_trusted(gate),
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


def _trusted(gate: Gate | None) -> TrustedKeys:
    """The keys that a gate trusts; without one nobody's."""
    return parse_trusted_keys(gate.keys()["text"], source="the gate's keys") if gate else NO_KEYS
