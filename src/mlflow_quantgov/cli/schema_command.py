"""`quantgov schema`: JSON Schemas for whoever makes statements, policies or targets elsewhere."""

from __future__ import annotations

from typing import Any

import click

from mlflow_quantgov.cli.output import json_option, pairs_table, print_json
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.predicates import PREDICATES
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.policy.schema import Policy


@click.command()
@click.argument("kind", required=False)
@json_option
def schema(kind: str | None, as_json: bool) -> None:
    """Without KIND, list the kinds with their type URIs; with one, print its JSON Schema."""
    if kind is None:
        uris = {name: predicate.type_uri() for name, predicate in PREDICATES.items()}
        if as_json:
            print_json({**uris, "policy": "quantgov/policy/v1", "target": "quantgov/target/v1"})
        else:
            pairs_table("Kinds of evidence", {**uris, "policy": "the policy file", "target": "a target file"})
        return
    models: dict[str, Any] = {**PREDICATES, "policy": Policy, "target": Target}
    if kind not in models:
        raise UsageError(
            f"There is no kind {kind!r}.", why=f"Known are {', '.join(models)}.", fix="quantgov schema task-eval"
        )
    print_json(models[kind].model_json_schema())
