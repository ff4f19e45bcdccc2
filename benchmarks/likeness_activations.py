"""How often halves of one domain pass and different domains fail by what a parent's layers see.

`python benchmarks/likeness_activations.py PARENT FOLDER`: PARENT is a full-precision folder that transformers runs, FOLDER holds
one JSONL file per domain (field `text`). Each document is run once; random halves of each domain and every ordered pair of
domains are then judged at each number of documents, and what was found is printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.transformers_observer import Observer
from mlflow_quantgov.evidence.likeness import judge
from mlflow_quantgov.evidence.measure.calibration.layers import compare_layers
from mlflow_quantgov.evidence.measure.calibration.readings import gather, pieces_of, run
from mlflow_quantgov.evidence.measure.calibration.sampling import sample
from mlflow_quantgov.evidence.measure.documents import read_documents

FAMILY = 4
"""Tests that are judged together: this one and three of the texts."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parent", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where readings are kept; a killed run goes on")
    parser.add_argument("--documents", type=int, nargs="+", default=[50, 64, 100, 128], help="on each side")
    parser.add_argument("--run", type=int, default=256, help="documents of each domain that are run")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=10, help="random halves of each domain")
    given = parser.parse_args()
    observer = Observer(given.parent)
    domains = {}
    for path in sorted(given.folder.glob("*.jsonl")):
        identity = [str(given.parent), given.tokens]
        pieces = pieces_of(sample(read_documents(path))[: given.run], given.cache, identity)
        for piece in pieces:
            if not piece.kept():
                run(observer, piece, given.tokens)
        domains[path.stem] = gather(pieces).features
    inputs = tuple(observer.layers.values())
    generator = np.random.default_rng(0)
    print("| documents a side | compared | pairs | pass | inconclusive | fail | distance |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count in given.documents:
        halves = [drawn(one, count, generator) for one in domains.values() for _ in range(given.repeats)]
        print(row(count, "halves of a domain", [judged(*sides, inputs) for sides in halves], 95))
        pairs = [
            (drawn(domains[one], count, generator)[0], drawn(domains[other], count, generator)[0])
            for one, other in itertools.permutations(domains, 2)
        ]
        print(row(count, "different domains", [judged(*sides, inputs) for sides in pairs], 5), flush=True)


def drawn(
    features: NDArray[np.float32], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two disjoint random samples of a domain."""
    order = generator.permutation(len(features))
    size = min(count, len(features) // 2)
    return features[order[:size]], features[order[size : 2 * size]]


def judged(
    calibration: NDArray[np.float32], production: NDArray[np.float32], inputs: tuple[int, ...]
) -> dict[str, Any]:
    """What the test says of two samples."""
    one = compare_layers(calibration, production, inputs).likeness
    return judge(one.name, one.calibration, one.production, family=FAMILY, concentration=one.concentration)


def row(count: int, compared: str, results: Sequence[dict[str, Any]], percentile: int) -> str:
    """One row: outcomes, and a percentile of the distance."""
    outcomes = [one["outcome"] for one in results]
    shares = [f"{outcomes.count(one) / len(outcomes):.1%}" for one in ("pass", "inconclusive", "fail")]
    distance = f"{np.percentile([one['estimate'] for one in results], percentile):.3f}"
    return f"| {count} | {compared} | {len(results)} | {' | '.join([*shares, distance])} |"


if __name__ == "__main__":
    main()
