"""What a random sample of items says about all of them: how likely a forgery of a share of them would have stayed hidden."""

from __future__ import annotations

import math

CONFIDENCE = 0.99
"""A count of differing items is tolerated unless honest answers exceed it less often than one time in a hundred."""


def chance_hidden(of: int, drawn: int, share: float, tolerated: int = 0) -> float:
    """Probability that a forgery of a share of all items shows in no more items of a random sample than are tolerated.

    Hypergeometric: the sample is drawn without putting back. Every forged item that is drawn is taken to show.

    Args:
        of: Items in all.
        drawn: Items of the sample.
        share: Share of all items that is forged; rounded up to whole items.
        tolerated: Items that may differ without being taken for forged.
    """
    from scipy.stats import hypergeom

    forged = min(of, math.ceil(share * of - 1e-9))
    return float(min(1.0, max(0.0, hypergeom.cdf(tolerated, of, forged, drawn))))


def most_expected(drawn: int, share: float) -> int:
    """Items of a sample that may differ where each does with some probability.

    The smallest count that honest answers exceed in at most one sample of a hundred (binomial).

    Args:
        drawn: Items of the sample.
        share: Probability with which an honest item differs.
    """
    from scipy.stats import binom

    return int(binom.ppf(CONFIDENCE, drawn, share)) if drawn and share > 0 else 0


def highest_share(count: int, of: int, confidence: float = 0.95) -> float:
    """Upper confidence bound of a share of which so many were seen (Clopper and Pearson 1934, one-sided)."""
    from scipy.stats import beta

    return 1.0 if count >= of else float(beta.ppf(confidence, count + 1, of - count))
