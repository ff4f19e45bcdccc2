"""`quantgov schema`: JSON Schemas for whoever makes statements, policies, targets, recipes or kernel tables elsewhere."""

from __future__ import annotations

from typing import Any

import click

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.cli.output import json_option, pairs_table, print_json
from mlflow_quantgov.errors import UsageError, short
from mlflow_quantgov.evidence.kernel_table import Table
from mlflow_quantgov.evidence.predicates import PREDICATES
from mlflow_quantgov.evidence.signing import TrustedKeys
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.policy.schema import Policy

_FILES: dict[str, tuple[Any, str]] = {
    "policy": (Policy, "the policy file"),
    "target": (Target, "a target file"),
    "recipe": (Recipe, "a recipe file"),
    "keys": (TrustedKeys, "the file of trusted keys"),
    "kernel-table": (Table, "a table of kernels"),
}
"""Files that people write: the model, and words for it."""


@click.command()
@click.argument("kind", required=False)
@json_option
def schema(kind: str | None, as_json: bool) -> None:
    """Without KIND, list the kinds with their type URIs; with one, print its JSON Schema."""
    if kind is None:
        uris = {name: predicate.type_uri() for name, predicate in PREDICATES.items()}
        if as_json:
            print_json({**uris, **{name: f"quantgov/{name}/v1" for name in _FILES}})
        else:
            pairs_table("Kinds of evidence", {**uris, **{name: words for name, (_, words) in _FILES.items()}})
        return
    models: dict[str, Any] = {**PREDICATES, **{name: model for name, (model, _) in _FILES.items()}}
    if kind not in models:
        raise UsageError(
            f"There is no kind {short(kind)}.", why=f"Known are {', '.join(models)}.", fix="quantgov schema task-eval"
        )
    print_json(models[kind].model_json_schema())
