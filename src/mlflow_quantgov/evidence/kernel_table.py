"""The sourced table of which runtime serves which weights on which hardware, and how well."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.evidence.kernel_rows import Row, Text, Weights, every, weights_of
from mlflow_quantgov.evidence.predicates.kernels import Lookup, Support
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import DEMANDS, parse_yaml, read_yaml, validate

_KIND = DEMANDS._replace(schemas=("kernel-table",))
SEVERITY: dict[Support, int] = {
    "optimized": 0,
    "unknown": 1,
    "works-slowly": 2,
    "emulates": 3,
    "dequantizes": 4,
    "fails": 5,
}
"""What serves a part of a model worst is what the model gets."""
NO_TABLE = "no-table"
"""Row where nobody has read the runtime at all, perhaps since its name is spelt otherwise."""
WORDS = {
    "architecture": "the architecture",
    "compute_capability": "the GPU's compute capability",
    "cpu_flags": "the CPU's instruction sets",
    "runtime_version": "the version of the runtime",
    "shapes": "the shapes of the matrices",
}
"""What a target may leave open, in words."""


class Table(BaseModel):
    """Rows of one runtime."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: str = Field(alias="schema", pattern="^quantgov/kernels/v1$")
    runtime: str
    version: Text
    """Release whose sources or documents were read; rows that were read elsewhere say so in `source`."""
    notes: tuple[Text, ...] = ()
    """What holds for the whole table: where documents and code contradict each other, what has no row and why."""
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Table:
        ids = [row.id for row in self.rows]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"two rows have the id {twice!r}")
        return self

    @model_validator(mode="after")
    def _every_row_is_reached(self) -> Table:
        for index, row in enumerate(self.rows):
            above = next((one for one in self.rows[:index] if one.covers(row)), None)
            if above is not None:
                raise ValueError(f"the row {row.id} is never reached: {above.id} above it takes all that it is about")
        return self


def read_table(path: Path) -> Table:
    """One file of `policies/kernels`.

    Raises:
        PolicyError: It does not exist, or a key is wrong.
    """
    return validate(Table, parse_yaml(read_yaml(path, _KIND), path.name, _KIND), path.name, _KIND)


@cache
def load_tables(folder: Path | None = None) -> dict[str, Table]:
    """Every table of a folder by runtime (default: the shipped ones).

    Raises:
        PolicyError: A file is wrong.
    """
    tables = [read_table(path) for path in sorted((folder or policies_dir() / "kernels").glob("*.yaml"))]
    return {table.runtime: table for table in tables}


def lookup(quantization: Quantization, target: Target, *, version: str | None = None) -> Lookup:
    """What the table says about these weights on a target.

    Every kind of matrix is looked up by itself, and the worst answer is the model's: a tenth that has no kernel slows the rest.
    What hangs on something that the target does not state (its instruction sets, its GPU, its version) is `unknown` where
    the rows that may apply disagree about whether there is an optimized kernel.

    Args:
        quantization: What inspection found.
        target: The deployment.
        version: Version of the runtime that was seen; None for all that the target admits.
    """
    table = load_tables().get(target.runtime)
    kinds = list(weights_of(quantization))
    answers = [(_answer(table, kind, target, version), kind.count) for kind in kinds]
    total = sum(count for _, count in answers)
    shares: dict[str, float] = {}
    for answer, count in answers:
        shares[answer.row] = shares.get(answer.row, 0.0) + count / total
    worst = max(answers, key=lambda one: (SEVERITY[one[0].support], shares[one[0].row]))[0]
    return worst.model_copy(update={"share": round(shares[worst.row], 6)})


def candidates(
    table: Table, weights: Weights, target: Target, version: str | None = None
) -> tuple[list[Row], tuple[str, ...], bool]:
    """The rows that may be the first to match, what would settle which, and whether the last of them surely does."""
    found: list[Row] = []
    unsettled: list[str] = []
    for row in table.rows:
        served = row.served_by(target, version)
        about = row.about(weights)
        verdict = every(about, *served.values())
        if verdict is False:
            continue
        found.append(row)
        if verdict:
            return found, tuple(dict.fromkeys(unsettled)), True
        unsettled += [name for name, value in served.items() if value is None]
        unsettled += ["shapes"] if about is None else []
    return found, tuple(dict.fromkeys(unsettled)), False


def _answer(table: Table | None, weights: Weights, target: Target, version: str | None) -> Lookup:
    rows, unsettled, sure = candidates(table, weights, target, version) if table else ([], (), False)
    if table is None:
        known = ", ".join(sorted(load_tables()))
        nothing = f"policies/kernels has no table of the runtime {target.runtime}, but of {known}"
        return Lookup(runtime=target.runtime, support="unknown", row=NO_TABLE, source=nothing)
    if not rows:
        nothing = f"no row of policies/kernels for {target.runtime}"
        return Lookup(runtime=target.runtime, support="unknown", row="none", source=nothing)
    said = {row.support for row in rows} | (set() if sure else {"unknown"})
    if len(said) == 1:
        return _said(target.runtime, table, rows)
    if "optimized" not in said and "unknown" not in said:
        return _said(target.runtime, table, rows[-1:])
    words = "; ".join(f"{row.id} says {row.support}" for row in rows[:4])
    return Lookup(
        runtime=target.runtime,
        support="unknown",
        row=" or ".join(row.id for row in rows[:4]),
        source=f"it depends on {_listed(unsettled)}: {words}",
        depends_on=unsettled,
    )


def _said(runtime: str, table: Table, rows: list[Row]) -> Lookup:
    """Rows that say the same: the first one's words, and the kernels of all."""
    kernels = dict.fromkeys(row.kernel for row in rows if row.kernel)
    named = all(row.expects for row in rows)
    return Lookup(
        runtime=runtime,
        support=rows[0].support,
        kernel=" or ".join(kernels) or None,
        row=rows[0].id,
        source=rows[0].source,
        expects=tuple(glob for row in rows for glob in row.expects) if named else (),
        needs=rows[0].needs,
        read_at=table.version,
        read_on=rows[0].read_on,
        notes=rows[0].notes,
    )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(WORDS.get(name, name) for name in names)
