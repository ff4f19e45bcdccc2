"""Speed and memory of parent and quantized version on one machine, interleaved in one run."""

from __future__ import annotations

from math import comb
from statistics import median
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from mlflow_quantgov.evidence.predicates.base import Digest, Finite, Predicate, Record, ShortText, Side

LEVEL = 0.05


class Fingerprint(Record):
    """The hardware that measured, and the libraries that used it; compared with the target's."""

    machine: ShortText
    """Architecture, `x86_64`."""
    cpu_model: ShortText
    cpu_id: ShortText | None = None
    """Vendor, family, model and stepping (`AuthenticAMD 25/17/1`): clouds give many processors one name."""
    cpu_flags: tuple[ShortText, ...] = ()
    """Instruction sets that decide kernels (`avx2`, `avx512_vnni`, `amx_int8`)."""
    cores: int = Field(ge=1)
    """Usable by this process, affinity and cgroup limits included."""
    cpu_limit: Finite | None = Field(None, gt=0)
    """CPUs by the cgroup's quota (2.5); None without one."""
    memory_bytes: int = Field(ge=0)
    """Of the machine, or the cgroup's limit where that is lower."""
    accelerator: ShortText | None = None
    """GPU name; None where there is none."""
    accelerators: int | None = Field(None, ge=0)
    """GPUs that a process sees."""
    accelerator_memory_bytes: int | None = Field(None, ge=0)
    """Of one GPU."""
    compute_capability: ShortText | None = None
    """Of the GPU: `9.0`."""
    driver: ShortText | None = None
    """Version of the GPU's driver."""
    system: ShortText | None = None
    """Operating system with its release; recorded, never compared."""
    libraries: dict[ShortText, ShortText] | None = None
    """Distribution to version, of those that run models."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Facts that nobody had to give are left out where nobody gave them: a digest over older ones stays what it was."""
        return {key: value for key, value in write(self).items() if key not in _LATER or value is not None}


_LATER = {
    "cpu_id",
    "cpu_limit",
    "accelerators",
    "accelerator_memory_bytes",
    "compute_capability",
    "driver",
    "system",
    "libraries",
}
"""Fields that came after statements and targets had been written."""


class Speed(Record):
    """One timed run."""

    prefill: Finite = Field(gt=0)
    """Prompt tokens per second."""
    decode: Finite = Field(gt=0)
    """Generated tokens per second, all sequences of the batch together."""


class Round(Record):
    """Both sides, timed one after the other."""

    parent: Speed
    quantized: Speed


class Load(Record):
    """One load of the target, with its rounds."""

    batch: int = Field(ge=1)
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    rounds: tuple[Round, ...] = Field(min_length=3, max_length=1000)


class BenchmarkV1(Predicate):
    """A benchmark as version 1 recorded it: rounds fixed in number, weights instead of peak memory. Still read, no longer written."""

    KIND: ClassVar[str] = "benchmark"

    target: ShortText
    target_digest: Digest
    fingerprint: Fingerprint
    parent: Side
    quantized: Side
    loads: tuple[Load, ...] = Field(min_length=1, max_length=100)
    parent_resident_bytes: int | None = Field(None, ge=0)
    quantized_resident_bytes: int | None = Field(None, ge=0)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Median tokens/s of both sides and the interval of their ratio, per load."""
        memory = None
        if self.parent_resident_bytes and self.quantized_resident_bytes:
            memory = self.quantized_resident_bytes / self.parent_resident_bytes
        return {"loads": [summarize_load(load) for load in self.loads], "memory_ratio": memory}


def summarize_load(load: Load) -> dict[str, Any]:
    """Medians of both sides, and the median paired ratio (quantized / parent) with one-sided 95 % bounds.

    The bounds are order statistics: the k-th smallest of n ratios is a lower bound for their median with confidence
    1 - P(Binomial(n, 1/2) < k), whatever their distribution. Below 5 rounds not even the smallest reaches 95 %; it is
    given all the same, and `confidence` says what it is worth.
    """
    count = len(load.rounds)
    skip = _outer_ratios(count)
    result: dict[str, Any] = {
        "batch": load.batch,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "rounds": count,
        "confidence": 1 - _at_most(skip, count),
    }
    for phase in ("prefill", "decode"):
        parent = [getattr(one.parent, phase) for one in load.rounds]
        quantized = [getattr(one.quantized, phase) for one in load.rounds]
        ratios = sorted(q / p for p, q in zip(parent, quantized, strict=True))
        result[phase] = {
            "parent": median(parent),
            "quantized": median(quantized),
            "ratio": median(ratios),
            "ratio_low": ratios[skip],
            "ratio_high": ratios[-1 - skip],
        }
    return result


def _outer_ratios(count: int) -> int:
    """How many of the smallest ratios may be passed over while the next is still a 95 % bound for the median."""
    skip = 0
    while _at_most(skip + 1, count) <= LEVEL:
        skip += 1
    return skip


def _at_most(successes: int, count: int) -> float:
    """P(Binomial(count, 1/2) <= successes)."""
    return sum(comb(count, k) for k in range(successes + 1)) / float(2**count)
