"""Speed and memory of parent and quantized version on one machine, interleaved in one run."""

from __future__ import annotations

from math import comb
from statistics import median
from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import Digest, Finite, Predicate, Record, ShortText, Side

LEVEL = 0.05


class Fingerprint(Record):
    """The hardware that measured; compared with the target's."""

    machine: ShortText
    """Architecture, `x86_64`."""
    cpu_model: ShortText
    cpu_flags: tuple[ShortText, ...] = ()
    """Instruction sets that decide kernels (`avx2`, `avx512_vnni`, `amx_int8`)."""
    cores: int = Field(ge=1)
    """Usable by this process, cgroup limits included."""
    memory_bytes: int = Field(ge=0)
    accelerator: ShortText | None = None
    """GPU name; None where there is none."""


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


class Benchmark(Predicate):
    """Interleaved rounds of both sides; ratios are recomputed from them."""

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
