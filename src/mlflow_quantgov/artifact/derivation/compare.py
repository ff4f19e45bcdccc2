"""Compares a quantized model with its parent: pairs of tensors, the folded scales, then the verdict over all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.derivation.casts import AS_STORED, CASTS, Cast
from mlflow_quantgov.artifact.derivation.compensation import Column, best_column
from mlflow_quantgov.artifact.derivation.descent import Descent, LayerDescent, Verdict
from mlflow_quantgov.artifact.derivation.folding import (
    FEW_ROWS,
    is_foldable_norm,
    is_plain_product,
    norm_before,
    norm_factors,
    producer_of,
    row_factors,
    rows_were_scaled,
)
from mlflow_quantgov.artifact.derivation.judge import judge, scaled_columns
from mlflow_quantgov.artifact.derivation.judge_codebook import judge_codebook
from mlflow_quantgov.artifact.derivation.low_rank import explained, unseen
from mlflow_quantgov.artifact.derivation.measure import Factors, Measured, measure
from mlflow_quantgov.artifact.derivation.pairs import Pairs, pair
from mlflow_quantgov.artifact.derivation.plain import compare_plain, vector
from mlflow_quantgov.artifact.derivation.rotary import FACTORS, problem_of
from mlflow_quantgov.artifact.derivation.tables import is_table, table_problem

_SAMPLED = 6
_PRECISION = {"F16": 2.0**-11, "BF16": 2.0**-8}
_NO_FACTORS = Factors()
_BELIEVED = 0.5
"""Weights left outside, over those before, from which on factors of few rows are believed: any factors make them fewer."""
_EXPERT = re.compile(r"\bexperts\.\d+\.")


def compare(child: Path, parent: Path) -> Descent:
    """Whether the weights of a quantized model are the parent's, rounded.

    Both are read through memory maps, a few rows at a time; memory does not grow with the matrices.

    Args:
        child: Folder or file of the quantized model.
        parent: Folder or file of its full-precision parent.

    Raises:
        ArtifactError: One of them cannot be inspected.
    """
    ours, theirs = matrices(child), matrices(parent)
    for name in FACTORS:
        if name in ours and (problem := problem_of(ours[name], theirs.get(name), parent)):
            return Descent("unproved", problem, (), AS_STORED, None)
    for name, one in ours.items():
        stored = one.claim is None and is_table(one)
        if stored and (problem := table_problem(one, theirs.get(name), parent)):
            return Descent("unproved", problem, (), AS_STORED, None)
    pairs = pair(ours, theirs)
    if pairs.problem is not None:
        return Descent("refuted" if pairs.contradicts else "unproved", pairs.problem, (), AS_STORED, None)
    return _Comparison(pairs).run()


def folded_factors(pairs: Pairs) -> Iterator[tuple[str, Factors | None]]:
    """What each quantized matrix was multiplied with before it was rounded; None where that cannot be told whole.

    Args:
        pairs: Tensors of both sides, without a problem.

    Yields:
        Name and factors, matrices that pass scales on first.
    """
    comparison = _Comparison(pairs)
    for name in comparison.order():
        found = comparison.measure(name)
        left = not found.finite or scaled_columns(found) is not None or rows_were_scaled(found)
        yield name, None if left else comparison.factors_of(name)


class _Comparison:
    """One comparison: factors out of the norms first, then matrices in the order in which scales were passed on."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        folded = self._folded_norms()
        by_cast = {label: {name: self._factors(name, cast) for name in folded} for label, cast in CASTS.items()}
        self.cast_name = self._likeliest_cast(by_cast)
        self.norms = by_cast[self.cast_name]
        self.cast = CASTS[self.cast_name]
        self.rows: dict[str, tuple[Floats, Floats]] = {}
        self.measured: dict[str, Measured] = {}

    def order(self) -> list[str]:
        """Quantized matrices, those whose scales others take back first."""
        return sorted(self.pairs.quantized, key=lambda name: producer_of(name) is not None)

    def run(self) -> Descent:
        for name in self.order():
            self.measured[name] = self.measure(name)
        columns = self._best_columns()
        judged = [self._judge(name, columns[name]) for name in self.pairs.quantized]
        layers = [layer for layer, _ in judged] + [self._plain(name) for name in self.pairs.plain]
        verdicts = [verdict for _, verdict in judged]
        verdicts += ["refuted" for layer in layers if layer.bits is None and layer.problem]
        return _over_all(layers, verdicts, self.pairs.unreadable, self.cast_name)

    def _judge(self, name: str, column: Column) -> tuple[LayerDescent, Verdict]:
        child, found = self.pairs.child[name], self.measured[name]
        if child.codebook is not None:
            return judge_codebook(child, found)
        layer, verdict = judge(child, found, column)
        if layer.trace == "compensated":
            free = unseen(name, self.pairs.child)
            problem = explained(child, self.pairs.parent[name], self.cast, self.factors_of(name), free)
            if problem:
                return replace(layer, outside=found.share, resolution=None, trace="none", problem=problem), "unproved"
        return layer, verdict

    def _folded_norms(self) -> list[str]:
        """Norms that a scale was moved out of; believed only where the matrices behind them bear it out."""
        found = []
        matrices = [name for name, one in self.pairs.child.items() if one.rows > 1]
        for name in self.pairs.plain:
            if is_foldable_norm(name, self.pairs.norms, matrices) and self.pairs.child[name].rows == 1:
                folded = self._factors(name, CASTS[AS_STORED])
                if folded.columns is not None and self._is_better(name, folded):
                    found.append(name)
        return found

    def _factors(self, norm: str, cast: Cast) -> Factors:
        """What the matrices behind a norm were multiplied with."""
        child, parent = self.pairs.child[norm], self.pairs.parent[norm]
        factors = norm_factors(cast(vector(parent)), vector(child), self.pairs.norm_shift)
        return Factors(columns=factors, uncertainty=_PRECISION.get(child.kind, 0.0))

    def _is_better(self, norm: str, factors: Factors) -> bool:
        """Whether clearly fewer weights lie outside their cells with the factors than without."""
        behind = [name for name in self.pairs.quantized if norm_before(name, self.pairs.norms) == norm]
        counts = [0, 0]
        for name in behind:
            for place, one in enumerate((factors, Factors(uncertainty=factors.uncertainty))):
                counts[place] += self._sample(name, CASTS[AS_STORED], one).outside
        return counts[0] < 0.9 * counts[1]

    def _likeliest_cast(self, norms: dict[str, dict[str, Factors]]) -> str:
        """The type in which fewest weights of a sample lie outside; as stored where none is better."""
        names = self.pairs.quantized[:: max(1, len(self.pairs.quantized) // _SAMPLED)]
        outside = {}
        for label, cast in CASTS.items():
            found = [self._sample(name, cast, self._norm_of(name, norms[label])) for name in names]
            outside[label] = sum(one.outside for one in found)
        return min(outside, key=lambda label: outside[label])

    def _sample(self, name: str, cast: Cast, factors: Factors) -> Measured:
        return measure(self.pairs.child[name], self.pairs.parent[name], cast, factors, most_blocks=1)

    def _norm_of(self, name: str, norms: dict[str, Factors]) -> Factors:
        norm = norm_before(name, self.pairs.norms)
        return norms.get(norm, _NO_FACTORS) if norm else _NO_FACTORS

    def factors_of(self, name: str) -> Factors:
        """Scales that came from before a matrix, and those that were passed on to after it once it was measured."""
        factors = self._norm_of(name, self.norms)
        producer = producer_of(name)
        if producer in self.rows:
            scale, width = self.rows[producer]
            factors = Factors(columns=np.reciprocal(scale), uncertainty=width)
        return Factors(factors.columns, self.rows[name][0], factors.uncertainty) if name in self.rows else factors

    def measure(self, name: str) -> Measured:
        """Sums over a matrix, with its scales taken into account."""
        child, parent = self.pairs.child[name], self.pairs.parent[name]
        factors = self.factors_of(name)
        found = measure(child, parent, self.cast, factors)
        if child.codebook is not None or not self._passes_on(name) or not found.finite or found.share <= 0.01:
            return found
        if rows_were_scaled(found, FEW_ROWS):
            self.rows[name] = row_factors(child, parent, self.cast, factors)
            undone = measure(child, parent, self.cast, self.factors_of(name))
            if rows_were_scaled(found) or undone.outside < _BELIEVED * found.outside:
                return undone
            del self.rows[name]
        return found

    def _passes_on(self, name: str) -> bool:
        """Whether factors of its rows can be taken back in every matrix behind it, one factor to a column.

        Grouped heads share their rows, and nothing undoes that here: then no factor is believed.
        """
        behind = [other for other in self.pairs.quantized if producer_of(other) == name]
        if not all(is_plain_product(other, self.pairs.child) for other in behind):
            return False
        rows = self.pairs.child[name].rows
        return bool(behind) and all(self.pairs.child[other].columns == rows for other in behind)

    def _best_columns(self) -> dict[str, Column]:
        """For every matrix the best column of all that share its input."""
        groups: dict[str, list[str]] = {}
        for name in self.pairs.quantized:
            # Of experts each sees only the inputs that are sent to it.
            expert = _EXPERT.search(name)
            shared = norm_before(name, self.pairs.norms) or name
            groups.setdefault(f"{shared} {expert[0]}" if expert else shared, []).append(name)
        found: dict[str, Column] = {}
        for names in groups.values():
            same = len({self.pairs.child[name].columns for name in names}) == 1
            for members in [names] if same else [[name] for name in names]:
                found |= dict.fromkeys(members, best_column(self.measured[one] for one in members))
        return found

    def _plain(self, name: str) -> LayerDescent:
        """An unquantized tensor, whose scale may have been moved out of it, or into it."""
        child, parent = self.pairs.child[name], self.pairs.parent[name]
        if name in self.norms:
            factors = self.norms[name].columns
            assert factors is not None
            return compare_plain(child, parent, Factors(columns=np.reciprocal(factors)))
        weight = f"{name.removesuffix('.bias')}.weight"
        if name.endswith(".bias") and weight in self.rows:
            return compare_plain(child, parent, Factors(columns=self.rows[weight][0]))
        if name.endswith(".bias") and weight in self.norms and (moved := self.norms[weight].columns) is not None:
            # The scale leaves the bias of a norm with its weight, or the model computes something else.
            return compare_plain(child, parent, Factors(columns=np.reciprocal(moved)))
        factor = self._norm_of(name, self.norms)
        shift = self.pairs.norm_shift if name.endswith("norm.weight") else 0.0
        return compare_plain(child, parent, factor if factor.columns is not None else None, shift)


def _over_all(
    layers: list[LayerDescent], verdicts: Iterable[Verdict], unreadable: tuple[LayerDescent, ...], cast: str
) -> Descent:
    """The verdict of the worst tensor, and the reason in words."""
    found: set[Verdict] = set(verdicts)
    if unreadable:
        found.add("unproved")
    verdict: Verdict = next((one for one in ("refuted", "unproved") if one in found), "proved")
    everything = tuple(layers) + unreadable
    resolutions = [one.resolution for one in layers if one.resolution is not None]
    resolution = max(resolutions, default=None)
    wrong = sorted((one for one in everything if one.problem), key=lambda one: -one.relative_error)
    if wrong:
        count = f"{len(wrong)} of {len(everything)} tensors do not fit the parent. " if verdict == "refuted" else \
            f"{len(wrong)} of {len(everything)} tensors cannot be shown to be the parent's. "  # fmt: skip
        return Descent(verdict, f"{count}{wrong[0].name}: {wrong[0].problem}", everything, cast, None)
    rounded = sum(one.bits is not None for one in layers)
    found_all = Descent(verdict, "All tensors are the parent's, and none is quantized.", everything, cast, resolution)
    if not rounded:
        return found_all
    limit = f"; {found_all.limit}" if found_all.limit else ""
    return replace(found_all, reason=f"All {rounded} quantized matrices are the parent's, rounded{limit}.")
