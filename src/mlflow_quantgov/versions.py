"""Registered versions as the public operations need them: their files, their parent, and where evidence goes."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import LineageError, UsageError, one_line
from mlflow_quantgov.evidence import metrics
from mlflow_quantgov.evidence.predicates import Predicate
from mlflow_quantgov.evidence.signing import Attached, Signer, sign
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import upload_copy
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.flavor.download import LocalModel, local_model
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, LineageRecord, SavedModel
from mlflow_quantgov.gate.clients.finding import find_gate

SIGNING_KEY = "QUANTGOV_SIGNING_KEY"
"""Names the private key file by which measurements are signed, where none is given."""
_log = logging.getLogger("mlflow_quantgov")


@dataclass(frozen=True)
class Pair:
    """A quantized version and its parent, both on this machine, with their weights digests."""

    quantized: LocalModel
    quantized_weights: str
    parent: LocalModel
    parent_weights: str
    target: Target | None


def pair_of(uri: str) -> Pair:
    """A quantized version and its parent, on this machine."""
    quantized = local_model(uri)
    parent = parent_of(quantized)
    if parent is None:
        raise LineageError(
            f"{uri} names no parent.",
            why="Only a comparison with its full-precision parent shows what the quantization has cost.",
            fix='log it with mlflow_quantgov.log_model(..., parent="models:/NAME/VERSION")',
        )
    return Pair(
        quantized,
        quantized.manifest().weights_digest,
        parent,
        parent.manifest().weights_digest,
        declared_target(quantized),
    )


def record_of(model: LocalModel) -> LineageRecord | None:
    """What was written down at logging; None where another flavor logged it."""
    return SavedModel(model.root).lineage() if (model.root / LINEAGE_FILE).is_file() else None


def parent_of(model: LocalModel) -> LocalModel | None:
    """The parent that a version names; None where it names none."""
    record = record_of(model)
    return local_model(record.parent["uri"]) if record and record.parent else None


def full_precision(uri: str) -> LocalModel:
    """The parent of a version, or the version itself where it is one."""
    model = local_model(uri)
    return parent_of(model) or model


def attach_to(uri: str, parent: LocalModel) -> LocalModel:
    """The parent where it is registered itself, else the version that was named."""
    return parent if parent.version is not None else local_model(uri)


def declared_target(model: LocalModel) -> Target | None:
    """The target that a version was logged for."""
    record = record_of(model)
    return record.target if record else None


def target_for(model: LocalModel, given: str | Path | Target | None) -> Target:
    """The target that was given, else the one that the version was logged for."""
    found = find_target(given) if isinstance(given, str | Path) else given or declared_target(model)
    if found is None:
        raise UsageError(
            f"{model.uri} was logged without a target.",
            why="Kernels and speed mean something only for a named runtime on named hardware.",
            fix=f"quantgov kernels {model.uri} --target cpu-llamacpp",
        )
    return found


def runtime_of(pair: Pair) -> str | None:
    """Runtime of the target, where one was declared."""
    return pair.target.runtime if pair.target else None


def registered(model: LocalModel) -> tuple[str, str]:
    """Name and version of a registered model."""
    if model.version is None:
        raise not_registered(model.uri)
    return model.version.name, str(model.version.version)


def not_registered(uri: str) -> UsageError:
    """The error for a URI that names no registered version."""
    return UsageError(
        f"{uri} is not a registered version.",
        why="Evidence and decisions belong to a version of a registered model.",
        fix="name it as models:/NAME/VERSION",
    )


def signer_of(key: str | Path | None) -> Signer | None:
    """Whoever signs what is attached: by a private key file, or the one that `QUANTGOV_SIGNING_KEY` names; None for nobody.

    Asked before anything is measured, so that hours of work do not end at a passphrase.

    Raises:
        UsageError: The file is no private key, or does not open.
        MissingExtraError: `cryptography` is not installed.
    """
    from mlflow_quantgov.evidence.signing import load_signer

    chosen = key if key is not None else os.environ.get(SIGNING_KEY) or None
    return load_signer(Path(chosen)) if chosen is not None else None


def attach_content(model: LocalModel, weights: str, content: Predicate, signer: Signer | None = None) -> Statement:
    """State a predicate about weights, sign it where there is a key, and attach it to a version."""
    name = model.version.name if model.version is not None else model.root.name
    statement = Statement.about(weights, content, name=name)
    send(model, Attached(statement, sign(statement, signer) if signer else None))
    return statement


def send(model: LocalModel, attached: Attached) -> dict[str, Any]:
    """Have the gate take a statement in, then put a copy and its numbers beside the model, for people."""
    gate, statement = find_gate() if model.version is not None else None, attached.statement
    result: dict[str, Any] = {
        "kind": statement.kind,
        "statement_digest": statement.digest,
        "subject": statement.subject_digest,
        "attached": True,
    }
    if gate is not None:
        name, version = registered(model)
        result = gate.attach(name, version, attached.to_bytes())
        _warn_of(attached, result)
    if model.model_id is not None:
        _put_beside(model.model_id, attached, taken_in=gate is not None)
    return result


def _put_beside(model_id: str, attached: Attached, *, taken_in: bool) -> None:
    """Copy and numbers on the LoggedModel's page, for people; what the gate has taken in counts without them.

    A version outlives its LoggedModel, and whoever may attach evidence may perhaps not write to its experiment.
    """
    try:
        upload_copy(model_id, attached)
        metrics.record(model_id, attached.statement.content())
    except Exception as error:  # each store of files has a library with errors of its own
        if not taken_in:
            raise
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            said = "was deleted: the gate has the statement, its page shows none"
        else:
            said = f"got no copy or not its numbers: the gate has the statement, and that counts ({one_line(str(error))[:200]})"
        _log.warning("note: the logged model %s %s", model_id, said)


def _warn_of(attached: Attached, result: dict[str, Any]) -> None:
    """Say at once that a signature counts for nothing on this server, and not only at the promotion."""
    mine = attached.envelope.key if attached.envelope else None
    for one in result.get("signed_by", ()):
        if one["key"] == mine and one["standing"] != "valid":
            _log.warning(
                "note: the server has taken the %s statement in, but to it the key that signed is %s: it counts as unsigned. "
                "Fix: quantgov keys trust NAME.pub.pem --name NAME --role measurer   (on the server, then restart it)",
                result["kind"], one["standing"],
            )  # fmt: skip
