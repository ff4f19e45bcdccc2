"""What is expected of a measurement that has not run: how often scores differ, in which direction, and in what clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.statistics.power import Draw

Floats = NDArray[np.float64]

_LARGEST = 250
"""Items of a cluster that are counted one by one; larger clusters are planned by one of this size that varies as much."""


@dataclass(frozen=True)
class Expected:
    """The clusters that a measurement is expected to draw; differences are quantized minus parent."""

    totals: Floats
    """Sum of the differences in a cluster, shape [k]."""
    sizes: Floats
    """Items in a cluster, shape [k]."""
    chances: Floats
    """Chance of each such cluster, shape [k]."""
    span: float
    """Largest loss that one item can show."""
    cluster_size: float
    """Mean number of items in a cluster."""
    lost: float
    """Share of items with a lower score."""
    gained: float
    """Share of items with a higher score."""
    design_effect: float
    """Variance of the mean difference over that of as many independent items."""

    @property
    def difference(self) -> float:
        """Mean difference per item."""
        return float(self.totals @ self.chances / (self.sizes @ self.chances))

    def passing(self, margin: float) -> Draw:
        """One cluster's word for a loss smaller than the margin."""
        return self._draw(self.totals, -margin)

    def failing(self, margin: float) -> Draw:
        """One cluster's word for a loss larger than the margin."""
        return self._draw(-self.totals, margin)

    def _draw(self, totals: Floats, mean: float) -> Draw:
        worst = (-self.span - mean) * float(self.sizes.max())
        return Draw.of(totals - mean * self.sizes, self.chances, worst)


def expect(
    discordance: float,
    difference: float = 0.0,
    *,
    cluster_size: int = 1,
    design_effect: float | None = None,
    correlation: float | None = None,
    span: float = 1.0,
) -> Expected:
    """Scores of two values (right or wrong), from stated numbers.

    Args:
        discordance: Share of items whose two scores differ, between 0 and 1.
        difference: Expected mean difference, quantized minus parent, in units of the score.
        cluster_size: Items in a cluster.
        design_effect: 1 + (cluster_size - 1) * correlation; give this or `correlation`, or neither for independent items.
        correlation: Of the differences within a cluster, from 0 (independent) to 1 (a cluster changes as one).
        span: Distance of the two scores.

    Returns:
        Clusters whose shares of lost and gained items vary as a Dirichlet distribution with that correlation.

    Raises:
        UsageError: Numbers that cannot be, such as a difference larger than the discordance allows.
    """
    if not (math.isfinite(span) and span > 0):
        raise _impossible(f"The span {span!r} is not a finite number above 0", "1")
    if not 0 <= discordance <= 1:
        raise _impossible(f"The discordance {discordance!r} is not between 0 and 1", "0.1, or the share in a pilot")
    mean = difference / span
    if not abs(mean) <= discordance:
        raise _impossible(
            f"A mean difference of {difference:g} needs at least {abs(mean):.3g} of the items to differ, not {discordance:g}",
            f"a discordance of at least {abs(mean):.3g}",
        )
    lost, gained = (discordance - mean) / 2, (discordance + mean) / 2
    inner = _correlation(cluster_size, design_effect, correlation)
    size, counted = cluster_size, inner
    if cluster_size > _LARGEST:
        # A smaller cluster whose mean varies as much: the correlation within it makes up for the items that it lacks.
        size = _LARGEST
        counted = max(0.0, (size * (1 + (cluster_size - 1) * inner) / cluster_size - 1) / (size - 1))
    totals, chances = _net_counts(size, lost, gained, counted)
    scale = span * cluster_size / size
    return Expected(
        totals=totals * scale,
        sizes=np.full(len(totals), float(cluster_size)),
        chances=chances,
        span=span,
        cluster_size=cluster_size,
        lost=lost,
        gained=gained,
        design_effect=1 + (cluster_size - 1) * inner,
    )


def expect_as_pilot(
    differences: Sequence[float] | Floats,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    *,
    difference: float | None = 0.0,
    span: float = 1.0,
) -> Expected:
    """Scores of any kind, from the differences of a pilot.

    Args:
        differences: Quantized minus parent, one per item of the pilot.
        groups: Cluster of each item; None makes each item its own cluster.
        difference: Expected mean difference. The pilot's clusters keep their sizes and amounts, and as many are losses as
            that mean takes; a pilot is too small to say where the mean lies. None keeps the pilot's own mean.
        span: Largest loss that one item can show.

    Raises:
        UsageError: No differences, other numbers of groups, or a mean that those amounts cannot have.
    """
    values = np.asarray(differences, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise _impossible("The pilot has no differences, or some that are not finite", "one finite difference per item")
    if groups is not None and len(groups) != len(values):
        raise _impossible(
            f"The pilot has {len(values)} differences and {len(groups)} groups", "one group per difference"
        )
    cluster = np.arange(len(values))
    if groups is not None:
        cluster = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    sizes, totals = np.bincount(cluster).astype(float), np.bincount(cluster, weights=values).astype(float)
    items = len(values)
    mean = float(values.mean())
    single = float(((values - mean) ** 2).sum())
    effect = float(((totals - mean * sizes) ** 2).sum()) / single if single > 0 else 1.0
    lost, gained = float(np.mean(values < 0)), float(np.mean(values > 0))
    chances = np.full(len(sizes), 1 / len(sizes))
    if difference is not None:
        amount = float(np.abs(totals).sum()) / items
        if not abs(difference) <= amount:
            raise _impossible(
                f"The mean difference {difference:g} is larger than the pilot's clusters differ, {amount:.3g} on average",
                f"a difference between {-amount:.3g} and {amount:.3g}",
            )
        # The share of all that differs which is lost.
        share = (1 - (difference / amount if amount else 0.0)) / 2
        lost, gained = (lost + gained) * share, (lost + gained) * (1 - share)
        totals, sizes = np.concatenate([-np.abs(totals), np.abs(totals)]), np.tile(sizes, 2)
        chances = np.concatenate([chances * share, chances * (1 - share)])
    span = max(span, float(np.abs(values).max()))
    return Expected(totals, sizes, chances, span, items / (cluster.max() + 1), lost, gained, effect)


def _correlation(size: int, effect: float | None, correlation: float | None) -> float:
    if size < 1 or int(size) != size:
        raise _impossible(f"The cluster size {size!r} is not a whole number above 0", "1")
    if effect is not None and correlation is not None:
        raise _impossible("Both a design effect and a correlation are given", "one of the two")
    if effect is not None:
        if not 1 <= effect <= size:
            raise _impossible(f"The design effect {effect!r} is not between 1 and the cluster size {size}", "1.5")
        return (effect - 1) / (size - 1) if size > 1 else 0.0
    if correlation is None:
        return 0.0
    if not 0 <= correlation <= 1:
        raise _impossible(f"The correlation {correlation!r} within clusters is not between 0 and 1", "0.1")
    return correlation if size > 1 else 0.0


def _net_counts(size: int, lost: float, gained: float, correlation: float) -> tuple[Floats, Floats]:
    """Gained minus lost items of one cluster, and the chance of each: Dirichlet-multinomial counts, summed exactly."""
    from scipy.special import betaln, gammaln

    shares = np.array([lost, gained, 1 - lost - gained])
    if size == 1 or correlation >= 1:
        return np.array([-size, size, 0.0]), shares
    down, up = np.meshgrid(np.arange(size + 1), np.arange(size + 1), indexing="ij")
    inside = down + up <= size
    counts = np.stack([down[inside], up[inside], size - (down + up)[inside]]).astype(float)
    possible = (counts[shares <= 0] == 0).all(axis=0)
    counts, kept = counts[:, possible][shares > 0], shares[shares > 0, None]
    if correlation > 0:
        whole = (1 - correlation) / correlation
        # n B(n, a) / prod_i x_i B(x_i, a_i), a factor of 1 where x_i is 0.
        present = np.where(counts > 0, counts, 1.0)
        parts = np.where(counts > 0, np.log(present) + betaln(present, whole * kept), 0.0)
        logs = math.log(size) + betaln(size, whole) - parts.sum(axis=0)
    else:
        logs = gammaln(size + 1) - gammaln(counts + 1).sum(axis=0) + (counts * np.log(kept)).sum(axis=0)
    net = (up - down)[inside][possible] + size
    chances = np.bincount(net, weights=np.exp(logs), minlength=2 * size + 1)
    return np.arange(-size, size + 1, dtype=float), chances / chances.sum()


def _impossible(what: str, instead: str) -> UsageError:
    return UsageError(f"{what}.", why="A plan from it would promise what cannot be.", fix=f"give {instead}")
