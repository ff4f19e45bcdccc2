"""The sourced table of which runtime serves which weights on which hardware, and how well."""

from __future__ import annotations

import fnmatch
from datetime import date
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.evidence.predicates.kernels import Lookup, Support
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate


class Row(BaseModel):
    """One sourced fact. A list that is empty matches anything; the first row that matches counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    format: str
    types: tuple[str, ...] = ()
    """Globs on the storage type of most weights, or the method (`Q4_K`, `nf4`)."""
    bits: tuple[float, ...] = ()
    group_sizes: tuple[int, ...] = ()
    """-1 stands for one scale per channel."""
    symmetric: bool | None = None
    desc_act: bool | None = None
    devices: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    support: Support
    kernel: str | None = None
    source: str
    read_on: date


class Table(BaseModel):
    """Rows of one runtime."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: str = Field(alias="schema", pattern="^quantgov/kernels/v1$")
    runtime: str
    rows: tuple[Row, ...]


@cache
def load_tables(folder: Path | None = None) -> dict[str, Table]:
    """Every table of a folder by runtime (default: the shipped ones).

    Raises:
        PolicyError: A file is wrong.
    """
    tables = {}
    for path in sorted((folder or policies_dir() / "kernels").glob("*.yaml")):
        table = validate(Table, parse_yaml(read_yaml(path), path.name), path.name)
        tables[table.runtime] = table
    return tables


def lookup(quantization: Quantization, target: Target) -> Lookup:
    """What the table says about these weights on a target; `unknown` where no row matches."""
    table = load_tables().get(target.runtime)
    for row in table.rows if table else ():
        if _matches(row, quantization, target):
            return Lookup(runtime=target.runtime, support=row.support, kernel=row.kernel, row=row.id, source=row.source)
    return Lookup(
        runtime=target.runtime, support="unknown", row="none", source=f"no row of policies/kernels for {target.runtime}"
    )


def _matches(row: Row, found: Quantization, target: Target) -> bool:
    if row.format not in {found.format, "*"}:
        return False
    kinds = [kind for kind in (_main_type(found), found.method) if kind]
    if row.types and not any(fnmatch.fnmatch(kind, glob) for kind in kinds for glob in row.types):
        return False
    group = -1 if found.group_size is None else found.group_size
    conditions = (
        not row.bits or found.bits in row.bits,
        not row.group_sizes or group in row.group_sizes,
        row.symmetric is None or found.symmetric == row.symmetric,
        row.desc_act is None or bool(found.desc_act) == row.desc_act,
        not row.devices or target.hardware.device in row.devices,
        not row.architectures or target.hardware.architecture in row.architectures,
    )
    return all(conditions)


def _main_type(found: Quantization) -> str | None:
    """Storage type that holds most quantized weights."""
    weights: dict[str, int] = {}
    for layer in found.layers:
        if layer.type and len(layer.shape) == 2:
            weights[layer.type] = weights.get(layer.type, 0) + layer.shape[0] * layer.shape[1]
    return max(weights, key=lambda kind: weights[kind]) if weights else None
