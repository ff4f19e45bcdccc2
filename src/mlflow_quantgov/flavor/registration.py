"""What is written for people around a logged model, and the parent's place beside its quantized version."""

from __future__ import annotations

import re
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_quantgov.artifact.describe import width_of
from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.errors import LineageError, UsageError, pasted, visible
from mlflow_quantgov.flavor.download import LocalModel, search_versions
from mlflow_quantgov.flavor.prepare import Prepared


def check_names(name: str | None, registered_model_name: str | None) -> None:
    """Refuse names that MLflow would refuse half way through.

    Raises:
        UsageError: A name is empty or holds `/` or `:`.
    """
    for what, given in (("logged model", name), ("registered model", registered_model_name)):
        if given is not None and (not given.strip() or any(mark in given for mark in "/:")):
            raise UsageError(
                f"{given!r} cannot be the name of a {what}.",
                why="A name is not empty, and `/` and `:` separate the parts of a URI. Nothing was logged.",
                fix="choose another name, such as smollm2-chat",
            )


def facts_as_params(prepared: Prepared) -> dict[str, Any]:
    """What people want to see on the LoggedModel's page, as its parameters; nothing is decided by them."""
    found = prepared.inspection.quantization
    facts = {
        "format": found.format,
        "method": found.method,
        "bits": found.bits,
        "bits_per_weight": round(found.bits_per_weight, 3),
        "group_size": found.group_size,
        "size_bytes": found.size_bytes,
        "parent": prepared.parent.uri if prepared.parent else None,
        "target": prepared.target.name if prepared.target else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def in_markdown(text: str) -> str:
    """Words of a file or a registry in a description, which MLflow renders: no link, picture, code or markup."""
    return re.sub(r"([\\`\[\]<>!])", r"\\\1", visible(text, keep=""))


def summary_of(quantization: Quantization) -> str:
    """One line for a version's description; begins with plain text, since the versions table shows it raw."""
    if not quantization.is_quantized:
        return f"Full-precision parent ({in_markdown(quantization.dtype or quantization.format)})."
    width = width_of(quantization) or "quantized"
    method = quantization.method if quantization.method != quantization.format else None
    words = in_markdown(" ".join(filter(None, (quantization.format, method))))
    return f"{width} {words}, {quantization.bits_per_weight:.2f} bits per weight."


def describe_version(name: str, version: str, prepared: Prepared) -> None:
    """Write the version's description: what it is, and whose descendant."""
    text = summary_of(prepared.inspection.quantization)
    if prepared.parent is not None:
        text += f" Parent: {in_markdown(prepared.parent.uri)}."
    mlflow.MlflowClient().update_model_version(name, version, description=text)


def ensure_parent_version(name: str, parent: LocalModel) -> str:
    """Make the parent a version of the registered model too, unless it is one, and return the version.

    An alias can only point to a version of its own registered model; rollback moves it to this one.

    Raises:
        LineageError: The parent's version could not be created.
    """
    client = mlflow.MlflowClient()
    source = parent.version.source if parent.version is not None else parent.uri
    for version in search_versions(client.search_model_versions, name):
        if version.source == source:
            return str(version.version)
    try:
        created = client.create_model_version(
            name,
            source=str(source),
            run_id=parent.version.run_id if parent.version is not None else None,
            model_id=parent.model_id,
            description=f"Full-precision parent, from {in_markdown(parent.uri)}; what rollback returns to.",
        )
    except MlflowException as error:
        raise LineageError(
            f"The parent {parent.uri} could not be made a version of {name}: {error.message}",
            why="An alias can only be moved back to a version of the same registered model. The quantized version is "
            "registered all the same.",
            fix=f"quantgov log-parent PATH --name parent --register {pasted(name)}",
        ) from error
    return str(created.version)
