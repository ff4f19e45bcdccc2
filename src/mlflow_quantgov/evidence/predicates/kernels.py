"""Which kernel runs these weights on the target: by the table, and by what the runtime really selected."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import Digest, Predicate, Record, ShortText, Side

Support = Literal["optimized", "works-slowly", "dequantizes", "fails", "unknown"]


class Lookup(Record):
    """One row of the kernel table that applies."""

    runtime: ShortText
    support: Support
    kernel: ShortText | None = None
    row: ShortText
    """Identifier of the row in policies/kernels."""
    source: ShortText


class Kernels(Predicate):
    """Table lookup for a target, and the live probe on the measuring machine where it could load the model."""

    KIND: ClassVar[str] = "kernels"

    target: ShortText
    target_digest: Digest
    lookup: Lookup
    probed: bool
    """Whether the runtime loaded the model here; False leaves the probe not measured."""
    not_probed_because: ShortText | None = None
    side: Side | None = None
    dequantized: bool | None = None
    resident_bytes: int | None = Field(None, ge=0)
    parameter_types: dict[str, int] = Field(default_factory=dict)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """`support` by the table, overruled where the probe saw the weights expanded."""
        support = "dequantizes" if self.dequantized else self.lookup.support
        return {"support": support, "kernel": self.side.kernel if self.side else None, "probed": self.probed}
