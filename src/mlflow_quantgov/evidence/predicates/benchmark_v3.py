"""Speed and memory of parent and quantized version on one machine: rounds in which a coin decides who runs first."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import Digest, Finite, Predicate, Record, ShortText, Side
from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint, Speed

MustImprove = Literal["speed", "memory", "both"]
Phase = Literal["prefill", "decode", "both"]
SideName = Literal["parent", "quantized"]
Cause = Literal["memory", "refused", "crashed", "time"]
"""Why a side did not load: its memory ran out, the runtime said no, its process ended, or it took too long."""


class Request(Record):
    """One request of a load, in seconds since it was sent."""

    first: Finite = Field(gt=0)
    """Until its first token arrived."""
    last: Finite = Field(gt=0)
    """Until its last one did."""


class Sample(Speed):
    """One timed run of one side."""

    requests: tuple[Request, ...] = Field((), max_length=256)
    """Of each request, where they ran apart; empty where they were one batch, whose times follow from the speeds."""


class TimedRound(Record):
    """Both sides, timed one right after the other, in an order that a fair coin decided."""

    first: SideName
    parent: Sample | None = None
    """None where the parent does not load on this machine."""
    quantized: Sample


class TimedLoad(Record):
    """One load of the target, with its rounds."""

    batch: int = Field(ge=1)
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    rounds: tuple[TimedRound, ...] = Field(min_length=1, max_length=1000)
    ended: Literal["narrow", "time", "rounds"]
    """Why there are no more rounds: the interval was narrow enough, the time was up, or there were as many as allowed."""


class Resources(Record):
    """What a side took, in a process of its own."""

    load_seconds: Finite | None = Field(None, ge=0)
    """With files that were read before (warm)."""
    baseline_bytes: int | None = Field(None, ge=0)
    """Resident memory of its process before the model was loaded: interpreter and libraries."""
    peak_bytes: int | None = Field(None, ge=0)
    """Most resident memory of its process while it loaded and ran the loads."""
    weight_bytes: int | None = Field(None, ge=0)
    """Of the loaded weights, as the runtime says."""
    device_bytes: int | None = Field(None, ge=0)
    """Most memory of the GPU; None where there is none, or nobody can tell."""


class Try(Record):
    """One configuration of one side, tried in a short heat before the rounds."""

    configuration: ShortText
    """In words: `BF16 twin, 2 threads`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    speeds: tuple[Speed, ...] = Field((), max_length=100)
    """Best of a few runs of each load, in their order; empty where it did not run."""
    load_seconds: Finite | None = Field(None, ge=0)
    cold: bool = False
    """Whether its files had been put out of the page cache before (as far as the system does that when asked)."""
    resources: Resources | None = None
    """What it took in its heat; None where it did not run, and in statements of before that was recorded."""
    failed: ShortText | None = None
    """Why it did not run."""
    chosen: bool = False


class NotLoaded(Record):
    """That the parent was tried on this machine and did not load, as the measuring process saw it."""

    cause: Cause
    error: ShortText
    free_memory_bytes: int = Field(ge=0)
    """Before the last try."""
    out_of_memory_kills: int | None = Field(None, ge=0)
    """Processes that the kernel killed for memory during the tries, by the cgroup's count; None where it does not count."""


class Conditions(Record):
    """What else went on."""

    load_average: Finite | None = Field(None, ge=0)
    """Processes that wanted to run in the minute before; None where the system does not say."""
    throttled_periods: int | None = Field(None, ge=0)
    """Periods in which the cgroup's CPU quota stopped this run; None without a quota."""
    together: bool = True
    """Whether both models were in memory at once; else each was loaded again for its half of every round."""


class Demand(Record):
    """What the target asks for; the gate goes by its own copy of the target."""

    must_improve: MustImprove
    phase: Phase
    width: Finite = Field(gt=0)
    """Relative width of the interval of a ratio that counts as narrow."""


class Benchmark(Predicate):
    """Rounds of both sides, each in its fastest lossless configuration; every number is recomputed from them."""

    KIND: ClassVar[str] = "benchmark"
    VERSION: ClassVar[int] = 3

    target: ShortText
    target_digest: Digest
    demand: Demand
    fingerprint: Fingerprint | None
    """None where the hardware that served is not known."""
    hardware_unknown: ShortText | None = None
    """Why it is not."""
    parent: Side
    quantized: Side
    parent_not_loaded: NotLoaded | None = None
    parent_tries: tuple[Try, ...] = Field((), max_length=100)
    quantized_tries: tuple[Try, ...] = Field((), max_length=100)
    loads: tuple[TimedLoad, ...] = Field(min_length=1, max_length=100)
    parent_resources: Resources = Resources()
    quantized_resources: Resources = Resources()
    conditions: Conditions = Conditions()
    warnings: tuple[ShortText, ...] = Field((), max_length=100)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """See `benchmark_summary.summarize`."""
        from mlflow_quantgov.evidence.predicates.benchmark_summary import summarize

        return summarize(self)

    @model_validator(mode="after")
    def _records_fit(self) -> Self:
        lacking = self.parent_not_loaded is not None
        if any((one.parent is None) != lacking for load in self.loads for one in load.rounds):
            raise ValueError("rounds hold the parent where, and only where, it loaded")
        if lacking and any(one.speeds for one in self.parent_tries):
            raise ValueError("the parent is said not to load, and ran in its heat")
        if (self.fingerprint is None) != (self.hardware_unknown is not None):
            raise ValueError("the hardware is either known, or it is said why not")
        for name, tries in (("parent", self.parent_tries), ("quantized", self.quantized_tries)):
            self._check_tries(name, tries, wanted=not (self.provenance.imported or (lacking and name == "parent")))
        return self

    def _check_tries(self, name: str, tries: tuple[Try, ...], *, wanted: bool) -> None:
        chosen = [one for one in tries if one.chosen]
        if len(chosen) != int(wanted):
            raise ValueError(f"{len(chosen)} configurations of the {name} are marked as chosen")
        ran = [one for one in tries if one.speeds]
        if any(len(one.speeds) != len(self.loads) for one in ran):
            raise ValueError(f"a configuration of the {name} was not tried at every load")
        if chosen and chosen != [max(ran, key=lambda one: pace(one.speeds, self.demand.phase), default=None)]:
            raise ValueError(f"the {name} did not run in the fastest configuration that was tried")


def phases_of(phase: Phase) -> tuple[str, ...]:
    """The phases that count."""
    return ("prefill", "decode") if phase == "both" else (phase,)


def pace(speeds: tuple[Speed, ...], phase: Phase) -> float:
    """One number by which configurations are ranked: the geometric mean of their speeds in the phases that count.

    Args:
        speeds: At each load.
        phase: What counts.
    """
    found = [getattr(speed, name) for speed in speeds for name in phases_of(phase)]
    product = 1.0
    for one in found:
        product *= one ** (1 / len(found))
    return product
