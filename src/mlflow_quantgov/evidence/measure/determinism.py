"""Whether a runtime gives the same answers when it is asked again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.evidence.predicates.base import Side

_BACKENDS = re.compile(r"(\w+) : ")
"""Backends in llama.cpp's `system_info`, each before its features."""


@dataclass(frozen=True)
class Determinism:
    """What is known of one side before it is asked."""

    deterministic: bool
    why: str
    """In words, for the statement."""


def determinism_of(facts: RuntimeFacts) -> Determinism:
    """Whether greedy answers repeat bit by bit, by what the runtime says of itself.

    Only what was seen to repeat (see the tests of the runtimes) counts as deterministic: the CPU, with the number of threads
    and the batches that the statement records. Everything else is asked twice, where it is not known.
    """
    if not facts.saw_bytes:
        return Determinism(False, "a server puts requests of others into its batches, and may change between requests")
    return repeats(facts)


def repeats(ran: RuntimeFacts | Side) -> Determinism:
    """The same of files that were run, by the record of it."""
    device = str(ran.settings.get("device") or _device_of(ran))
    if device.startswith("cpu") and ran.runtime in {"llama.cpp", "transformers", "onnxruntime"}:
        return Determinism(True, "greedy, on the CPU, with the same threads and batches")
    return Determinism(False, f"{ran.runtime} on {device}: the order of its sums is not fixed")


def _device_of(ran: RuntimeFacts | Side) -> str:
    """llama.cpp names the buffer that holds the weights instead of a device, and what it was built for.

    The former stands in its log, which another part of the process may have taken for itself (a server in it does).
    """
    built_for = set(_BACKENDS.findall(str(ran.settings.get("system_info") or "")))
    kernel = (ran.kernel or "").upper()
    return "cpu" if kernel.startswith("CPU") or (not kernel and built_for == {"CPU"}) else "an unknown device"
