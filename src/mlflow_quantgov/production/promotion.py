"""Ask for a promotion through the same doors as the web UI, and take one back in one operation."""

from __future__ import annotations

import re
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_quantgov.errors import UnreachableError, UsageError, pasted
from mlflow_quantgov.gate.clients.finding import require_gate
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.gate.doors.refusals import said_and_fix
from mlflow_quantgov.policy.decision import Decision

_DECISION = re.compile(r"/quantgov/decisions/([0-9A-Za-z-]+)")


@dataclass(frozen=True)
class Rollback:
    """One alias, moved back."""

    model: str
    alias: str
    before: str | None
    """Version that the alias pointed to."""
    after: str
    """Version that it points to now."""
    decision_id: str


def promote(name: str, version: str, destination: str) -> Decision:
    """Ask for a destination.

    Args:
        name: Registered model.
        version: Its version.
        destination: `@alias` or a stage.

    Returns:
        The gate's decision; where it is refused, nothing has changed.

    Raises:
        UnreachableError: Nothing is gated, or the server does not answer.
        UsageError: There is no such version or stage.
    """
    gate = require_gate("promote a version by evidence")
    client = mlflow.MlflowClient()
    try:
        if destination.startswith("@"):
            client.set_registered_model_alias(name, destination.removeprefix("@"), version)
        else:
            client.transition_model_version_stage(name, version, destination)
    except MlflowException as error:
        refused = _refusal(gate, error)
        if refused is None:
            raise _explain(name, version, destination, error) from error
        return refused
    return _newest(gate, name, version, destination)


def rollback(name: str, alias: str, to: str | None = None) -> Rollback:
    """Move an alias back in one operation.

    Args:
        name: Registered model.
        alias: Alias without the `@`.
        to: Version to move to; None for the full-precision parent of the version that serves now.

    Raises:
        UsageError: The alias is not set, or there is nothing to go back to, or the gate refuses.
    """
    gate = require_gate("record a rollback")
    client = mlflow.MlflowClient()
    alias = alias.removeprefix("@")
    name = name.removeprefix("models:/").split("/")[0]
    try:
        before = str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        raise UsageError(
            f"There is no model {name} with an alias {alias}.",
            why="There is nothing to take back.",
            fix=f"quantgov audit log --model {pasted(name)}",
        ) from error
    after = to or _parent_version(name, before)
    decision = promote(name, after, f"@{alias}")
    if not decision.allowed and decision.mode == "enforce":
        raise UsageError(
            f"The rollback of {name}@{alias} to version {after} was refused: {decision.one_line()}",
            why="The alias still points to where it pointed before.",
            fix=next((check.fix for check in decision.checks if check.refuses and check.fix), "quantgov doctor"),
        )
    row = next(iter(gate.ledger(name, 1)), {})
    return Rollback(name, alias, before, after, decision.decision_id or str(row.get("decision_id", "")))


def _parent_version(name: str, version: str) -> str:
    """The version of the same registered model that holds the parent of a version."""
    from mlflow_quantgov.flavor.download import local_model, search_versions
    from mlflow_quantgov.flavor.layout import SavedModel

    here = local_model(f"models:/{name}/{version}")
    parent = SavedModel(here.root).lineage().parent
    if parent is None:
        raise UsageError(
            f"{name} version {version} is itself a parent.",
            why="There is no full-precision version behind it to go back to.",
            fix=f"quantgov rollback {pasted(name)} --alias ALIAS --to VERSION",
        )
    found = None
    for candidate in search_versions(mlflow.MlflowClient().search_model_versions, name):
        manifest = local_model(f"models:/{name}/{candidate.version}").manifest()
        if manifest.digest == parent.get("manifest"):
            return str(candidate.version)
        if manifest.weights_digest == parent["weights"] and found is None:
            # The same weights, and some other file: only where nothing is the parent to the byte.
            found = str(candidate.version)
    if found is not None:
        return found
    raise UsageError(
        f"No version of {name} holds the parent {parent['uri']}.",
        why="An alias can only be moved to a version of its own registered model.",
        fix=f"quantgov log-parent PATH --name parent --register {pasted(name)}",
    )


def _refusal(gate: Gate, error: MlflowException) -> Decision | None:
    if error.error_code != "PERMISSION_DENIED":
        return None
    found = _DECISION.search(str(error.message))
    return gate.decision(found[1]) if found else None


def _newest(gate: Gate, name: str, version: str, destination: str) -> Decision:
    for row in gate.ledger(name, 20):
        here = str(row.get("version")) == version and str(row.get("destination")) == destination
        if here and row.get("kind") == "promotion":
            found = gate.decision(str(row["decision_id"]))
            if found is not None:
                return found
    return gate.check(name, version, destination)


def _explain(name: str, version: str, destination: str, error: MlflowException) -> UsageError | UnreachableError:
    first = str(error.message).splitlines()[0][:1000]
    said, fix = said_and_fix(first)
    if error.error_code == "PERMISSION_DENIED" and fix:
        return UsageError(
            f"{name} version {version} was not promoted to {destination}: {said}", why="Nothing was changed.", fix=fix
        )
    if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "BAD_REQUEST"}:
        return UsageError(
            f"{name} version {version} was not promoted to {destination}: {first}",
            why="Nothing was changed.",
            fix=f"quantgov check {pasted(f'models:/{name}/{version}')} --to {pasted(destination)}",
        )
    return UnreachableError(
        f"{name} version {version} was not promoted to {destination}: {first}",
        why="Nothing was changed.",
        fix="quantgov doctor",
    )
