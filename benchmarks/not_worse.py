"""How often the verdict is wrong, and whether plans hold: the tables of docs/explanation/statistics.md.

    python benchmarks/not_worse.py [--write docs/explanation/statistics.md]

About a minute on one core. True losses equal the margin, where a pass and a fail are both wrong and most frequent. For 0/1
scores of independent items the rates are summed exactly and simulated too; everything else is simulated, from fixed seeds.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.evidence.statistics import Expected, expect, expect_as_pilot, plan
from mlflow_quantgov.evidence.statistics.exponential_sums import tail_estimate, tail_probability
from mlflow_quantgov.evidence.statistics.power import power

Floats = NDArray[np.float64]
Sample = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
"""(generator, samples) to the totals and sizes of the clusters, both of shape [samples, clusters]."""

LEVEL = 0.05
START, END = "<!-- written by benchmarks/not_worse.py -->", "<!-- end -->"
ITEMS = (50, 100, 200, 500, 1000, 2000, 5000)
BINARY = tuple(
    (margin, discordance)
    for margin, shares in {0.02: (0.02, 0.05, 0.2, 0.6), 0.05: (0.05, 0.1, 0.3, 0.6), 0.1: (0.1, 0.2, 0.6)}.items()
    for discordance in shares
)
_FEW = ((5, 0.7), (10, 0.4), (20, 0.25), (30, 0.15), (100, 0.05))
"""Clusters, and margins at which so few can pass."""
_ROW = 400_000


def generator(label: str) -> np.random.Generator:
    """One stream per label, whatever ran before."""
    return np.random.default_rng(zlib.crc32(label.encode()))


def shown(values: Floats, counts: Floats) -> NDArray[np.bool_]:
    """Which weighted sums are above zero at the level: the verdict, for many samples at once."""
    chance = tail_estimate(values, counts)
    close = np.abs(chance - LEVEL) < 0.3 * LEVEL
    if close.any():
        values, counts = np.broadcast_arrays(values, counts)
        chance[close] = tail_probability(values[close], counts[close])
    return chance <= LEVEL


def rates(totals: Floats, sizes: Floats, margin: float) -> tuple[float, float]:
    """Shares of samples that pass and that fail; scores between 0 and 1."""
    sums = np.zeros(2)
    step = max(1, _ROW // totals.shape[1])
    for start in range(0, len(totals), step):
        part, size = totals[start : start + step], sizes[start : start + step]
        largest = size.max(axis=1, keepdims=True)
        for side, (values, worst) in enumerate(
            ((part + margin * size, (margin - 1) * largest), (-part - margin * size, (-margin - 1) * largest))
        ):
            sums[side] += shown(np.concatenate([values, worst], axis=1), np.ones(totals.shape[1] + 1)).sum()
    return float(sums[0] / len(totals)), float(sums[1] / len(totals))


def binary_rates(
    items: int, margin: float, lost: float, gained: float, samples: int, label: str
) -> tuple[float, float]:
    """As `rates`, for independent 0/1 scores; samples with the same counts are judged once."""
    drawn = generator(label).multinomial(items, [lost, 1 - lost - gained, gained], size=samples)
    distinct, times = np.unique(drawn, axis=0, return_counts=True)
    counts = np.column_stack([distinct, np.ones(len(distinct))]).astype(float)
    change = np.array([-1.0, 0.0, 1.0])
    passed = shown(np.append(change + margin, margin - 1), counts)
    failed = shown(np.append(-change - margin, -margin - 1), counts)
    return float(times @ passed / samples), float(times @ failed / samples)


def exact_rates(items: int, margin: float, discordance: float) -> tuple[float, float]:
    """Chances of a wrong pass and a wrong fail where the true loss is the margin; every pair of counts is summed."""
    at_margin = expect(discordance, -margin)
    return power(at_margin.passing(margin), items, LEVEL, 0), power(at_margin.failing(margin), items, LEVEL, 0)


@dataclass(frozen=True)
class Case:
    """Data whose true loss is the margin."""

    label: str
    margin: float
    sample: Sample


def _sizes(kind: str, clusters: int) -> Callable[[np.random.Generator, int], Floats]:
    def draw(random: np.random.Generator, samples: int) -> Floats:
        if kind == "of 10":
            return np.full((samples, clusters), 10.0)
        if kind == "of 5 to 15":
            return random.integers(5, 16, (samples, clusters)).astype(float)
        return np.minimum(random.geometric(0.15, (samples, clusters)), 50).astype(float)

    return draw


def _falls(clusters: int, sizes: str, margin: float, how: str) -> Sample:
    """Clusters that fall whole, by half, or item by item with a correlation of 0.3, so that the loss is the margin."""
    draw = _sizes(sizes, clusters)
    pool = draw(np.random.default_rng(0), 200_000 // clusters).ravel()

    def sample(random: np.random.Generator, samples: int) -> tuple[Floats, Floats]:
        size = draw(random, samples)
        if how == "whole, large ones more often":
            chance = np.minimum(1, _slope(pool, margin) * size)
            return -size * (random.random(size.shape) < chance), size
        if how == "whole":
            return -size * (random.random(size.shape) < margin), size
        if how == "by half":
            return -size / 2 * (random.random(size.shape) < 2 * margin), size
        lost, gained = margin + 0.05, 0.05
        share = random.dirichlet(np.array([lost, gained, 1 - lost - gained]) * 0.7 / 0.3, size.shape)
        down = random.binomial(size.astype(int), share[..., 0])
        rest = 1 - share[..., 0]
        part = np.divide(share[..., 1], rest, out=np.zeros_like(rest), where=rest > 0)
        return (random.binomial(size.astype(int) - down, np.minimum(part, 1)) - down).astype(float), size

    return sample


def _slope(pool: Floats, margin: float) -> float:
    """How much likelier per item a cluster falls, where the chance is in proportion to its size and the loss the margin."""
    from scipy.optimize import brentq

    return float(brentq(lambda slope: float((np.minimum(1, slope * pool) * pool).mean() / pool.mean()) - margin, 0, 10))


def cluster_cases() -> Iterator[Case]:
    """Few and many clusters, of one size and of many."""
    whole, larger, half, single = "whole", "whole, large ones more often", "by half", "item by item"
    for clusters, margin, sizes, ways in (
        *((few, margin, "of 10", (whole, single)) for few, margin in _FEW),
        *((few, margin, "of 5 to 15", (larger, single)) for few, margin in _FEW),
        (400, 0.05, "of 10", (whole, half, single)),
        (400, 0.1, "of 1 to 50", (whole, larger, half, single)),
    ):
        for how in ways:
            label = f"{clusters} clusters {sizes}, fall {how}"
            yield Case(label, margin, _falls(clusters, sizes, margin, how))


def real_cases() -> Iterator[Case]:
    """Scores between 0 and 1 whose differences are skewed in the ways that mislead a t test."""

    def rare(random: np.random.Generator, shape: tuple[int, int], margin: float) -> Floats:
        return np.where(random.random(shape) < (margin + 0.01) / 0.91, -0.9, 0.01)

    def spread(random: np.random.Generator, shape: tuple[int, int], margin: float) -> Floats:
        fallen = random.random(shape) < (margin + 0.01) / 0.76
        return np.where(fallen, -random.uniform(0.5, 1, shape), random.uniform(0, 0.02, shape))

    def noise(random: np.random.Generator, shape: tuple[int, int], margin: float) -> Floats:
        return np.clip(random.normal(0, 0.2, shape), -0.9, 0.9) - margin

    def skewed(random: np.random.Generator, shape: tuple[int, int], margin: float) -> Floats:
        return 0.05 - (0.05 + margin) * random.beta(0.2, 1.8, shape) / 0.1

    names = {
        "0.9 lost rarely, 0.01 gained else": rare,
        "0.5 to 1 lost rarely, a little gained else": spread,
        "normal noise": noise,
        "a long tail of losses": skewed,
    }
    for items, margin in ((50, 0.1), (150, 0.02), (200, 0.05), (1000, 0.02)):
        for name, differences in names.items():

            def sample(
                random: np.random.Generator,
                samples: int,
                *,
                of: Callable[..., Floats] = differences,
                n: int = items,
                m: float = margin,
            ) -> tuple[Floats, Floats]:
                return of(random, (samples, n), m), np.ones((samples, n))

            if name != "a long tail of losses" or margin < 0.1:
                yield Case(f"{items} items, {name}", margin, sample)


def case_rates(case: Case, samples: int) -> tuple[float, float]:
    """Simulated rates of a wrong pass and a wrong fail."""
    return rates(*case.sample(generator(case.label), samples), case.margin)


@dataclass(frozen=True)
class Planned:
    """A plan to be carried out many times."""

    label: str
    margin: float
    expected: Expected
    draw: Callable[[np.random.Generator, int, int], tuple[Floats, Floats]]
    """(generator, samples, clusters) to totals and sizes, independent of how the plan was computed."""


def plans() -> Iterator[Planned]:
    """0/1 scores, clusters, and real-valued scores of which a pilot is known."""

    def flips(lost: float, gained: float, size: int, rho: float) -> Callable[..., tuple[Floats, Floats]]:
        shares = np.array([lost, gained, 1 - lost - gained])

        def draw(random: np.random.Generator, samples: int, clusters: int) -> tuple[Floats, Floats]:
            chances = random.dirichlet(shares * (1 - rho) / rho, (samples, clusters)) if rho else shares
            counts = random.multinomial(size, chances, (samples, clusters))
            return (counts[..., 1] - counts[..., 0]).astype(float), np.full((samples, clusters), float(size))

        return draw

    for margin, discordance, difference in (
        (0.3, 0.3, 0.0), (0.3, 0.6, 0.0), (0.1, 0.1, 0.0), (0.1, 0.6, 0.0), (0.1, 0.3, -0.03), (0.05, 0.05, 0.0),
        (0.05, 0.2, 0.01), (0.05, 0.6, 0.0), (0.02, 0.02, 0.0), (0.02, 0.1, 0.0), (0.02, 0.3, 0.0),
    ):  # fmt: skip
        one = expect(discordance, difference)
        label = f"0/1, {discordance:.0%} differ, true difference {difference:+.0%}".replace("+0%", "0")
        yield Planned(label, margin, one, flips(one.lost, one.gained, 1, 0))
    for margin, discordance, size, rho in ((0.05, 0.1, 10, 0.3), (0.1, 0.2, 5, 0.1), (0.15, 0.3, 20, 0.5)):
        one = expect(discordance, cluster_size=size, correlation=rho)
        label = f"0/1, {discordance:.0%} differ, clusters of {size}, correlation {rho:g}"
        yield Planned(label, margin, one, flips(one.lost, one.gained, size, rho))
    random = generator("pilot")
    pilot = np.where(random.random(300) < 0.1, random.uniform(-0.9, 0.9, 300), random.normal(0, 0.05, 300))
    groups = np.sort(random.integers(0, 60, 300))
    for label, margin, of, by in (
        ("real scores, the pilot's differences", 0.05, pilot, np.arange(300)),
        ("real scores, the pilot's differences", 0.02, pilot, np.arange(300)),
        ("real scores, the pilot's clusters", 0.05, pilot, groups),
    ):
        one = expect_as_pilot(of, by)
        yield Planned(label, margin, one, _again(of, by))


def _again(differences: Floats, groups: NDArray[np.int64]) -> Callable[..., tuple[Floats, Floats]]:
    """Clusters of the pilot, drawn again, each with a sign that is tossed."""
    names, place = np.unique(groups, return_inverse=True)
    totals, sizes = np.bincount(place, differences), np.bincount(place).astype(float)

    def draw(random: np.random.Generator, samples: int, clusters: int) -> tuple[Floats, Floats]:
        chosen = random.integers(0, len(names), (samples, clusters))
        return totals[chosen] * random.choice([-1.0, 1.0], chosen.shape), sizes[chosen]

    return draw


def simulated_power(planned: Planned, clusters: int, samples: int) -> float:
    """Share of samples of that many clusters that pass."""
    random, step = generator(planned.label), max(1, 4_000_000 // clusters)
    passed = 0.0
    for start in range(0, samples, step):
        count = min(step, samples - start)
        passed += rates(*planned.draw(random, count, clusters), planned.margin)[0] * count
    return passed / samples


def table(samples: int = 5_000) -> str:
    """All tables as Markdown."""
    percent = "{:.1%}".format
    head = [f"{items:,}" for items in ITEMS]
    lines = [
        "**Independent 0/1 items.** Wrong pass / wrong fail where the true loss is the margin, by number of items; exact.",
        "",
        f"| margin | differ | {' | '.join(head)} |",
        f"| ---: | ---: | {' | '.join('---:' for _ in head)} |",
    ]
    for margin, discordance in BINARY:
        cells = [" / ".join(map(percent, exact_rates(items, margin, discordance))) for items in ITEMS]
        lines.append(f"| {margin:g} | {discordance:.0%} | {' | '.join(cells)} |")
    lines += [
        "",
        f"**Clusters, and real-valued scores.** The same, in {samples:,} simulations of each.",
        "",
        "| data | margin | wrong pass | wrong fail |",
        "| --- | ---: | ---: | ---: |",
    ]
    for case in (*cluster_cases(), *real_cases()):
        passed, failed = case_rates(case, samples)
        lines.append(f"| {case.label} | {case.margin:g} | {passed:.1%} | {failed:.1%} |")
    lines += [
        "",
        "**Plans**, for a power of 80 %, and how often they passed when they were carried out "
        f"{samples:,} times on data drawn independently.",
        "",
        "| data | margin | items | clusters | planned power | passed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in plans():
        made = plan(one.margin, one.expected)
        found = simulated_power(one, made.clusters, samples)
        lines.append(
            f"| {one.label} | {one.margin:g} | {made.items:,} | {made.clusters:,} | {made.power:.1%} | {found:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description="How often the verdict is wrong.")
    parser.add_argument("--write", type=Path, help="Markdown page with the two marks between which the tables stand.")
    target = parser.parse_args().write
    text = table()
    if target is None:
        print(text)
        return
    before, _, rest = target.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    target.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
