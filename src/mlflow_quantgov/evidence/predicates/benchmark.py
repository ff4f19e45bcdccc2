"""Speed and memory of parent and quantized version on one machine, interleaved in one run."""

from __future__ import annotations

from statistics import median
from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import Digest, Finite, Predicate, Record, ShortText, Side


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
    """Medians, and the smallest and largest paired ratio (quantized / parent) of the rounds.

    The interval from the smallest to the largest of n paired ratios covers the median ratio with confidence
    1 - 2^(1-n) (order statistics), which is 75 % for 3 rounds and 94 % for 5.
    """
    result: dict[str, Any] = {
        "batch": load.batch,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "rounds": len(load.rounds),
    }
    for phase in ("prefill", "decode"):
        parent = [getattr(one.parent, phase) for one in load.rounds]
        quantized = [getattr(one.quantized, phase) for one in load.rounds]
        ratios = [q / p for p, q in zip(parent, quantized, strict=True)]
        result[phase] = {
            "parent": median(parent),
            "quantized": median(quantized),
            "ratio": median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
        }
    return result
