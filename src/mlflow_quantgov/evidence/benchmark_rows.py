"""A benchmark as rows of text, for terminals and pages alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.evidence.predicates.benchmark import Fingerprint
from mlflow_quantgov.evidence.predicates.benchmark_summary import QUANTILES
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark, Try

_ENDED = {"narrow": "the interval is narrow", "time": "the time was up", "rounds": "as many as asked for"}
_NEEDED = {"p50": 2, "p95": 20, "p99": 100}
"""Samples from which on a quantile is more than the largest by another name."""


@dataclass(frozen=True)
class Row:
    """One line: what, both sides, their ratio, and what is to be said of it."""

    what: str
    parent: str
    quantized: str
    ratio: str = ""
    remark: str = ""


def load_tables(summary: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """Title and rows of each load: speeds with the bounds of their ratio, then latency."""
    return [(_title(load), _load_rows(load)) for load in summary["loads"]]


def resource_rows(summary: dict[str, Any]) -> list[Row]:
    """What each side took to load and to run."""
    seconds, memory = summary["load_seconds"], summary["memory"]
    words = {"cold": "load, s (files read from disk)", "warm": "load, s (files cached)"}
    rows = [Row(text, number(seconds["parent"][key]), number(seconds["quantized"][key])) for key, text in words.items()]
    if memory["basis"] is None:
        return [*rows, Row("memory", "not measured", "not measured")]
    parent, quantized = (number(memory[side] / 1e6 if memory[side] else None) for side in ("parent", "quantized"))
    ratio = f"x{memory['ratio']:.2f}" if memory["ratio"] is not None else "-"
    other = memory.get("parent_configuration")
    basis = f"{memory['basis']}; parent as {other}" if other else memory["basis"]
    return [*rows, Row(f"memory, MB ({basis})", parent, quantized, ratio)]


def try_rows(tries: Sequence[Try]) -> list[tuple[str, str, str, str]]:
    """Configuration, prefill and decode at the first load in tokens/s, and what became of it."""
    found = []
    for one in tries:
        first = one.speeds[0] if one.speeds else None
        speeds = (number(first.prefill), number(first.decode)) if first else ("-", "-")
        found.append((one.configuration, *speeds, "taken" if one.chosen else one.failed or ""))
    return found


def where(content: Benchmark) -> str:
    """The machine and the runtime, in one line."""
    machine = content.fingerprint
    if machine is None:
        return f"The hardware is not known ({content.hardware_unknown}), so no policy lets this pass."
    return f"Measured on {machine_words(machine)}; {content.quantized.runtime} {content.quantized.version}."


def machine_words(machine: Fingerprint) -> str:
    """The hardware in a few words."""
    gpu = f", {machine.accelerator}" if machine.accelerator else ""
    cores = f"{machine.cores} core{'s' * (machine.cores != 1)}"
    return f"{machine.cpu_model}, {cores}, {machine.memory_bytes / 1e9:.0f} GB{gpu}"


def number(value: float | None) -> str:
    """Three digits that count, without exponents."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _title(load: dict[str, Any]) -> str:
    return (
        f"Batch {load['batch']}, {load['prompt_tokens']} prompt + {load['output_tokens']} output tokens: "
        f"{load['rounds']} rounds ({_ENDED[load['ended']]})"
    )


def _load_rows(load: dict[str, Any]) -> list[Row]:
    rows = []
    for phase in ("decode", "prefill"):
        one = load[phase]
        bounds = "too few rounds" if one["ratio"] is not None else ""
        if one["ratio_low"] is not None:
            bounds = f"{one['ratio_low']:.2f} to {one['ratio_high']:.2f}"
        ratio = f"x{one['ratio']:.2f}" if one["ratio"] is not None else "-"
        rows.append(Row(f"{phase}, tokens/s", number(one["parent"]), number(one["quantized"]), ratio, bounds))
    for name, words in (("time_to_first_token_ms", "first token, ms"), ("request_ms", "whole request, ms")):
        for quantile in QUANTILES:
            parent, quantized = (load[name]["parent"] or {}).get(quantile), load[name]["quantized"][quantile]
            few = f"{_NEEDED[quantile]} samples needed" if quantized is None else ""
            rows.append(Row(f"{words}, {quantile}", number(parent), number(quantized), "", few))
    return rows
