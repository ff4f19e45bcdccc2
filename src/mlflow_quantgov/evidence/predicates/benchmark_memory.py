"""What the two sides of a benchmark took of the memory: like against like, and what an instrument cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_quantgov.evidence.predicates.benchmark_v3 import Resources, Try

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark


@dataclass(frozen=True)
class Memory:
    """Bytes of both sides on one basis."""

    basis: str | None = None
    """What was counted; None where nothing was."""
    parent: int | None = None
    """None where the parent did not load."""
    parent_configuration: str | None = None
    """The one in which the parent took least; None where that is the one in which it was timed."""
    quantized: int | None = None
    told_apart: bool = True
    """Whether the sides differ by more than two runs of one model do on this basis."""

    @property
    def ratio(self) -> float | None:
        """Quantized / parent."""
        return self.quantized / self.parent if self.quantized is not None and self.parent else None

    @property
    def saved(self) -> int:
        """Bytes that the quantized version takes less."""
        return (self.parent or 0) - (self.quantized or 0)

    def to_dict(self) -> dict[str, Any]:
        """As a summary holds it."""
        return {
            "basis": self.basis, "parent": self.parent, "parent_configuration": self.parent_configuration,
            "quantized": self.quantized, "ratio": self.ratio,
        }  # fmt: skip


@dataclass(frozen=True)
class _Basis:
    words: str
    take: Callable[[Resources], int | None]
    blur: int
    """Bytes by which it may differ between two runs of the same model."""


def _above_baseline(one: Resources) -> int | None:
    if one.peak_bytes is None or one.baseline_bytes is None:
        return None
    return max(0, one.peak_bytes - one.baseline_bytes)


_WEIGHTS = _Basis("loaded weights", lambda one: one.weight_bytes, 0)
"""A sum over tensors, the same in every run."""
_PEAKS = (
    # torch takes 20 MiB from the GPU at a time for tensors of 1 to 10 MiB (c10/cuda/CUDACachingAllocator: kLargeBuffer).
    _Basis("peak of the GPU", lambda one: one.device_bytes, 20 * 2**20),
    # Linux counts a process's pages on each CPU and adds them up by max(32, 2 x CPUs) pages (lib/percpu_counter.c), an
    # allocator keeps pieces, and libraries touch pages of their own late. Measured: 0.3 MB between equal runs on 2 cores,
    # 1.5 MB more after 600 rounds, and on 16 cores 1.5 MB more with 16 threads than with 2.
    _Basis("peak of the process, above its libraries", _above_baseline, 8 * 2**20),
)
_LATE_LIBRARIES = 512 * 2**20
"""Bytes of libraries and compiled kernels that a process may load only while it runs, and so hold above its libraries."""


def memory_of(content: Benchmark) -> Memory:
    """What the quantized version took, and the parent in whichever lossless configuration took least, on the best basis.

    The configuration in which a parent is fastest may hold its weights in twice the bytes (float32 of a bfloat16 model), and
    nobody who is short of memory would serve it so.

    Peaks count. Where they are no further apart than two runs of one model may be, and what the weights save agrees with
    them as far as that, the saving is too small for the instrument: the weights decide, as the runtime counts them. Where
    the weights should have been told apart by more, the peaks stand: something expanded what was saved.
    """
    weights = _compare(content, _WEIGHTS)
    peaks = [(basis, found) for basis in _PEAKS if (found := _compare(content, basis)) is not None]
    if not peaks:
        return weights or Memory()
    basis, best = peaks[0]
    if weights is None or best.told_apart or weights.saved <= 0 or weights.saved - best.saved > basis.blur:
        return best
    # What a GPU cannot tell, the process beside it may: libraries that load late do not take that much.
    return next((one for _, one in peaks if one.saved < -_LATE_LIBRARIES), weights)


def memory_of_version_2(content: Benchmark) -> Memory:
    """What the rounds took against the least that the parent took in any process, a heat's too, as version 2 compared it."""
    for basis in (*_PEAKS, _WEIGHTS):
        quantized = basis.take(content.quantized_resources)
        if content.parent_not_loaded is not None:
            if quantized:
                return Memory(basis.words, quantized=quantized)
            continue
        parents = [(None, content.parent_resources), *_heats(content)]
        taken = [(more, name) for name, one in parents if (more := basis.take(one))]
        if quantized and taken:
            least, name = min(taken, key=lambda one: one[0])
            return Memory(basis.words, least, name, quantized)
    return Memory()


def _compare(content: Benchmark, basis: _Basis) -> Memory | None:
    """The comparison that is least in favour of the quantized version; None where a side was not measured on this basis.

    A process that ran hundreds of rounds holds more than one that ran a short heat. So a heat is held against a heat, and
    rounds against rounds; in the configurations of the parent that only ran a heat, rounds would have added what they added
    to the one that was timed.
    """
    rounds = basis.take(content.quantized_resources)
    if not rounds:
        return None
    if content.parent_not_loaded is not None:
        return Memory(basis.words, quantized=rounds)
    heat, added = _in_heat(content.quantized_tries, basis), _added(content, basis)
    pairs: list[tuple[str | None, int | None, int | None]] = [(None, basis.take(content.parent_resources), rounds)]
    for name, one in _heats(content):
        if parent := basis.take(one):
            pairs += [(name, parent + added, rounds), (name, parent, heat)]
    found = [
        Memory(basis.words, parent, name, quantized, abs(parent - quantized) > basis.blur)
        for name, parent, quantized in pairs
        if parent and quantized
    ]
    return max(found, key=_against, default=None)


def _added(content: Benchmark, basis: _Basis) -> int:
    """Bytes by which the parent's rounds exceed the heat of the same configuration; 0 where either was not measured."""
    heat, rounds = _in_heat(content.parent_tries, basis), basis.take(content.parent_resources)
    return max(0, rounds - heat) if heat and rounds else 0


def _in_heat(tries: Sequence[Try], basis: _Basis) -> int | None:
    """What the configuration that was timed took in its heat."""
    return next((basis.take(one.resources) for one in tries if one.chosen and one.resources), None)


def _against(memory: Memory) -> tuple[bool, bool, float]:
    """How much a comparison speaks against the quantized version: clearly more, then not clearly less, then the ratio."""
    return memory.told_apart and memory.saved <= 0, not memory.told_apart, memory.ratio or 0.0


def _heats(content: Benchmark) -> list[tuple[str | None, Resources]]:
    """What the parent took in each heat; None for the name of the configuration that was timed."""
    return [
        (None if one.chosen else one.configuration, one.resources)
        for one in content.parent_tries
        if one.resources is not None
    ]
