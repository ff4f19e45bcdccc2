"""What the two sides of a benchmark took of the memory: like against like, and what an instrument cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_quantgov.evidence.predicates.benchmark_v2 import Resources

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.predicates.benchmark_v2 import Benchmark


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


def memory_of(content: Benchmark) -> Memory:
    """What the quantized version took, and the parent in whichever lossless configuration took least, on the best basis.

    The configuration in which a parent is fastest may hold its weights in twice the bytes (float32 of a bfloat16 model), and
    nobody who is short of memory would serve it so.

    Peaks count. Where they are no further apart than two runs of one model may be, and the weights are not either, the
    models are too small for that instrument: the weights decide, as the runtime counts them. Where the weights should have
    been told apart, and the peaks are not, the peaks stand: something expanded what was saved.
    """
    weights = _compare(content, _WEIGHTS)
    for basis in _PEAKS:
        peaks = _compare(content, basis)
        if peaks is not None:
            too_small = weights is not None and not peaks.told_apart and 0 < _saved(weights) < basis.blur
            return weights if weights is not None and too_small else peaks
    return weights or Memory()


def _compare(content: Benchmark, basis: _Basis) -> Memory | None:
    """The comparison in which the quantized version does worst; None where a side was not measured on this basis.

    A process that ran hundreds of rounds holds more than one that ran a heat, so a heat is held against a heat and rounds
    against rounds.
    """
    rounds, taken = content.quantized_resources, next((one for one in content.parent_tries if one.chosen), None)
    if content.parent_not_loaded is not None:
        alone = basis.take(rounds)
        return Memory(basis.words, quantized=alone) if alone else None
    heat = next((one.resources for one in content.quantized_tries if one.chosen and one.resources), rounds)
    pairs = [(None, content.parent_resources, rounds)] + [
        (None if one is taken else one.configuration, one.resources, heat)
        for one in content.parent_tries
        if one.resources is not None
    ]
    found = []
    for configuration, parent, quantized in pairs:
        less, more = basis.take(quantized) or basis.take(rounds), basis.take(parent)
        if less and more:
            told_apart = abs(more - less) > basis.blur
            found.append(Memory(basis.words, more, configuration, less, told_apart))
    return max(found, key=lambda one: one.ratio or 0, default=None)


def _saved(memory: Memory) -> int:
    return (memory.parent or 0) - (memory.quantized or 0)
