"""The benchmark of a version in its report."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.evidence.benchmark_rows import Row, load_tables, number, resource_rows, try_rows, where
from mlflow_quantgov.evidence.predicates import Benchmark, BenchmarkV1
from mlflow_quantgov.evidence.predicates.benchmark_summary import summarize
from mlflow_quantgov.policy.facts import Facts


def benchmark_section(facts: Facts) -> dict[str, Any] | None:
    """What the benchmark that counts most says, ready for its template; None where there is none."""
    content = _counting(facts)
    if content is None:
        return None
    if isinstance(content, BenchmarkV1):
        return _of_version_1(content)
    summary = summarize(content)
    resources = [] if content.provenance.imported else [("Load and memory", resource_rows(summary))]
    sides = (("parent", content.parent_tries), ("quantized version", content.quantized_tries))
    return {
        "where": where(content),
        "reason": f"{summary['reason'][:1].upper()}{summary['reason'][1:]}.",
        "warnings": content.warnings,
        "tables": [*load_tables(summary), *resources],
        "tries": [
            (f"Configurations of the {name} that were tried (the fastest is taken)", try_rows(tries))
            for name, tries in sides
            if tries
        ],
    }


def _counting(facts: Facts) -> Benchmark | BenchmarkV1 | None:
    """By rank, one on the declared target before one on another; of other weights only where these have none."""
    own, target = facts.model.weights if facts.model else None, facts.target.digest if facts.target else None
    found = [
        (one.subject == own, content.target_digest == target, one.rank, content)
        for one in facts.evidence
        if isinstance(content := one.content, Benchmark | BenchmarkV1)
    ]
    return max(found, key=lambda one: one[:3])[-1] if found else None


def _of_version_1(content: BenchmarkV1) -> dict[str, Any]:
    """Speeds and weights: an earlier version measured no more."""
    summary = content.stated()
    tables = []
    for load in summary["loads"]:
        rows = [
            Row(
                f"{phase}, tokens/s",
                number(load[phase]["parent"]),
                number(load[phase]["quantized"]),
                f"x{load[phase]['ratio']:.2f}",
                f"{load[phase]['ratio_low']:.2f} to {load[phase]['ratio_high']:.2f}",
            )
            for phase in ("decode", "prefill")
        ]
        tables.append((f"Batch {load['batch']}, {load['prompt_tokens']} + {load['output_tokens']} tokens", rows))
    ratio = summary["memory_ratio"]
    memory = f" Loaded weights: {ratio:.0%} of the parent's." if ratio else ""
    machine = f"Measured on {content.fingerprint.cpu_model} by an earlier version, which fixed the rounds beforehand."
    return {"where": machine, "reason": memory, "warnings": (), "tables": tables, "tries": []}
