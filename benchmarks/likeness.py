"""How often halves of one domain pass and different domains fail: `python benchmarks/likeness.py FOLDER`.

FOLDER holds one JSONL file per domain (field `text`), with at least twice as many documents as are compared on a side. For
each number of documents, random halves of each domain and every ordered pair of domains are judged, and what every test said
is printed as a Markdown table, with the distances of the halves and of the closest pair of domains.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.evidence.likeness import overall
from mlflow_quantgov.evidence.measure.calibration.sampling import sample
from mlflow_quantgov.evidence.measure.calibration.views import compare_texts
from mlflow_quantgov.evidence.measure.documents import read_documents


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, nargs="+", default=[50, 100, 200], help="on each side")
    parser.add_argument("--repeats", type=int, default=10, help="random halves of each domain")
    given = parser.parse_args()
    domains = {path.stem: read_documents(path) for path in sorted(given.folder.glob("*.jsonl"))}
    generator = np.random.default_rng(0)
    print(
        "| documents a side | compared | pairs | pass | inconclusive | fail | surface | meaning | classifier | phrases |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in given.documents:
        halves = [drawn(texts, count, generator) for texts in domains.values() for _ in range(given.repeats)]
        print(row(count, "halves of a domain", [judged(*sides) for sides in halves], 95))
        pairs = [
            (drawn(domains[one], count, generator)[0], drawn(domains[other], count, generator)[0])
            for one, other in itertools.permutations(domains, 2)
        ]
        print(row(count, "different domains", [judged(*sides) for sides in pairs], 5), flush=True)


def drawn(texts: Sequence[str], count: int, generator: np.random.Generator) -> tuple[list[str], list[str]]:
    """Two disjoint random samples of a domain."""
    order = generator.permutation(len(texts))
    size = min(count, len(texts) // 2)
    return [texts[at] for at in order[:size]], [texts[at] for at in order[size : 2 * size]]


def judged(calibration: Sequence[str], production: Sequence[str]) -> list[dict[str, Any]]:
    """What every test says of two samples."""
    found = compare_texts(sample(calibration), sample(production))
    return [one.judged(len(found)) for one in found]


def row(count: int, compared: str, results: Sequence[list[dict[str, Any]]], percentile: int) -> str:
    """One row: outcomes over all tests, and a percentile of each test's distance."""
    outcomes = [overall(tests) for tests in results]
    shares = [f"{outcomes.count(one) / len(outcomes):.1%}" for one in ("pass", "inconclusive", "fail")]
    distances = [
        f"{np.percentile([tests[at]['estimate'] for tests in results], percentile):.3f}"
        for at in range(len(results[0]))
    ]
    return f"| {count} | {compared} | {len(results)} | {' | '.join([*shares, *distances])} |"


if __name__ == "__main__":
    main()
