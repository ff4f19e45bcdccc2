"""Which kernel runs these weights on the target: by the table, and by what the runtime really selected."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

from pydantic import Field

from mlflow_quantgov.artifact.runtimes.interface import EXPANDED
from mlflow_quantgov.evidence.predicates.base import Digest, Finite, Predicate, Record, ShortText, Side
from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint

Support = Literal["optimized", "works-slowly", "emulates", "dequantizes", "fails", "unknown"]
"""`emulates`: the weights stay packed and are expanded before every product; `dequantizes`: they are expanded once, on loading."""
EMULATION = ("Emulation*",)
"""Kernels that runtimes themselves name as expanding weights for each product."""


class Lookup(Record):
    """What the kernel table says of the weights that it serves worst."""

    runtime: ShortText
    support: Support
    kernel: ShortText | None = None
    row: ShortText
    """Identifier of the row in policies/kernels; several where it is open which applies."""
    source: ShortText
    expects: tuple[ShortText, ...] = ()
    """Globs of which the probe's kernel must match one; empty where nobody knows."""
    needs: tuple[ShortText, ...] = ()
    """What has to be installed or set beside the runtime."""
    read_at: ShortText | None = None
    """Release of the runtime in which the row was read."""
    read_on: date | None = None
    depends_on: tuple[ShortText, ...] = ()
    """What the target leaves open and would settle an answer that is `unknown`."""
    share: Finite = Field(1.0, ge=0, le=1)
    """Of the quantized weights, those that the row is about."""
    notes: ShortText | None = None


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
    """Whether the runtime expanded the weights on loading."""
    expanded_share: Finite | None = Field(None, ge=0, le=1)
    """Of the quantized weights, those that were expanded on loading; None where the runtime cannot tell."""
    emulated_share: Finite | None = Field(None, ge=0, le=1)
    """Of the quantized weights, those that were expanded again in a pass of one token; None where the runtime cannot tell."""
    operators: tuple[ShortText, ...] = ()
    """Operators that multiplied with the quantized weights in that pass, commonest first."""
    instruction_sets: tuple[ShortText, ...] = ()
    """Of those that decide kernels: the ones that the machine has and the runtime was built for."""
    unused_instruction_sets: tuple[ShortText, ...] = ()
    """Those that the machine has and the runtime, by its own word, was not built for."""
    fingerprint: Fingerprint | None = None
    """The machine on which it was probed."""
    resident_bytes: int | None = Field(None, ge=0)
    parameter_types: dict[str, int] = Field(default_factory=dict)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """`support` by the table, overruled where the probe saw the weights expanded."""
        kernel = self.side.kernel if self.side else None
        return {"support": self.seen() or self.lookup.support, "kernel": kernel, "probed": self.probed}

    def seen(self) -> Support | None:
        """What the probe saw that no table can gainsay; None where the weights were used as they are, or nobody looked."""
        if self.dequantized or (self.side and self.side.dequantized) or (self.expanded_share or 0) > EXPANDED:
            return "dequantizes"
        kernel = self.side.kernel if self.side else None
        if (self.emulated_share or 0) > EXPANDED or any(fnmatchcase(kernel or "", one) for one in EMULATION):
            return "emulates"
        return None

    def contradiction(self, lookup: Lookup | None = None) -> str | None:
        """Where the probe did not see the kernel that the table promises, in words; None where both agree or cannot be compared.

        Args:
            lookup: What the reader's own table says; None for the statement's.
        """
        said = lookup or self.lookup
        kernel = self.side.kernel if self.side else None
        names = [one for one in (kernel, *self.operators) if one]
        if not self.probed or not said.expects or not names:
            return None
        if any(fnmatchcase(name, glob) for name in names for glob in said.expects):
            return None
        return f"the table ({said.row}) expects {' or '.join(said.expects)}, the runtime chose {names[0]}"
