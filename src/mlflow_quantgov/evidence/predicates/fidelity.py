"""How far the quantized model's next-token distributions lie from the parent's."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, ShortText, Side

KL_EDGES = tuple(10.0 ** (step / 32 - 6) for step in range(257))
"""Edges, in nats, of the bins in which divergences are counted: 32 to a factor of ten, from 1e-6 to 100. Two more bins
take what lies below and above. A quantile is given as the upper edge of its bin: at most 7.5 % above the true one."""
QUANTILE = 0.99
WORST = 10
"""Documents that the summary names."""
ENGAGED_TOKENS = 1000
"""So many log-probabilities that are all equal bit by bit do not come from two different models."""
_SLACK = 1e-6


def kl_bin(kl: float) -> int:
    """Bin of one divergence in nats: 0 below the first edge, 257 from the last edge on."""
    return bisect_right(KL_EDGES, kl)


class DocumentRecordV1(Record):
    """Sums over the scored positions of one document."""

    id: Digest
    """Digest of the document's text; the text itself stays on the machine that measured."""
    tokens: int = Field(ge=1)
    parent_nll: Finite
    """Sum of -ln p(token) under the parent, in nats."""
    quantized_nll: Finite
    kl: Finite
    """Sum of KL(parent || quantized) of the next-token distributions, in nats."""
    kl_max: Finite
    same_top: int = Field(ge=0)
    """Positions at which both sides have the same most likely token."""
    identical: int = Field(ge=0)
    """Positions whose log-probability is bitwise equal on both sides."""


class DocumentRecord(DocumentRecordV1):
    """Sums over the scored positions of one document, and how its divergences are spread."""

    kl: Finite = Field(ge=0)
    """Sum of KL(parent || quantized) of the next-token distributions, in nats."""
    kl_max: Finite = Field(ge=0)
    kl_counts: tuple[tuple[int, int], ...] = Field(min_length=1, max_length=len(KL_EDGES) + 1)
    """Bin (see `KL_EDGES`) and number of positions in it, of those that hold any, in order."""

    @model_validator(mode="after")
    def _counts_fit_the_sums(self) -> Self:
        bins = [place for place, _ in self.kl_counts]
        if bins != sorted(set(bins)) or not 0 <= bins[0] <= bins[-1] <= len(KL_EDGES):
            raise ValueError("kl_counts names a bin twice, out of order, or one that does not exist")
        if any(count < 1 for _, count in self.kl_counts) or sum(count for _, count in self.kl_counts) != self.tokens:
            raise ValueError("kl_counts does not hold every token once")
        if self.same_top > self.tokens or self.identical > self.tokens:
            raise ValueError("more positions agree than there are")
        if not _lower(bins[-1]) * (1 - _SLACK) <= self.kl_max <= _upper(bins[-1]) * (1 + _SLACK):
            raise ValueError("kl_max does not lie in the last bin of kl_counts")
        least = sum(count * _lower(place) for place, count in self.kl_counts)
        most = sum(count * min(_upper(place), self.kl_max) for place, count in self.kl_counts)
        if not least * (1 - _SLACK) <= self.kl <= most * (1 + _SLACK) + 1e-12:
            raise ValueError("kl is not a sum that kl_counts can give")
        return self


class FidelityV1(Predicate):
    """Fidelity as version 1 recorded it: without the spread of the divergences. Still read, no longer written."""

    KIND: ClassVar[str] = "fidelity"

    parent: Side
    quantized: Side
    data: Digest
    """Digest of the text file that was scored."""
    settings: dict[str, Any]
    documents: tuple[DocumentRecordV1, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Perplexities, mean KL (nats per token), same-top-token rate, all weighted by tokens."""
        tokens = sum(document.tokens for document in self.documents)
        parent = math.exp(min(700.0, sum(document.parent_nll for document in self.documents) / tokens))
        quantized = math.exp(min(700.0, sum(document.quantized_nll for document in self.documents) / tokens))
        return {
            "documents": len(self.documents),
            "tokens": tokens,
            "parent_perplexity": parent,
            "quantized_perplexity": quantized,
            "perplexity_ratio": quantized / parent,
            "kl_mean": sum(document.kl for document in self.documents) / tokens,
            "kl_max": max(document.kl_max for document in self.documents),
            "same_top_rate": sum(document.same_top for document in self.documents) / tokens,
            "identical_tokens": sum(document.identical for document in self.documents),
        }


class Fidelity(FidelityV1):
    """KL divergence, same-top-token rate and perplexity against the parent. Reported, never sufficient alone."""

    VERSION: ClassVar[int] = 2

    data: Digest
    """Digest of the file that was scored: a text, or the parent's saved logits."""
    distributions: Literal["full", "saved-16-bit", "top-k"] = "full"
    """What was compared: whole distributions; those that llama.cpp saved, rounded to 16 bit, down to e^-16 of the most
    likely token; or an endpoint's most likely tokens with all others as one, whose KL is a lower bound."""
    documents: tuple[DocumentRecord, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    warnings: tuple[ShortText, ...] = Field((), max_length=100)

    def recompute(self) -> dict[str, Any]:
        """What version 1 gives, the 99th percentile of KL over all tokens, and the worst documents by their mean KL.

        `outcome` is `fail` where nothing quantized can have run, else null: distances alone decide nothing.
        """
        common = super().recompute()
        engaged = not (common["identical_tokens"] == common["tokens"] >= ENGAGED_TOKENS)
        worst = sorted(self.documents, key=lambda one: (-one.kl / one.tokens, one.id))[:WORST]
        return common | {
            "outcome": None if engaged else "fail",
            "kl_p99": kl_quantile((one.kl_counts for one in self.documents), common["kl_max"]),
            "kl_is_lower_bound": self.distributions == "top-k",
            "worst_documents": [
                {
                    "id": one.id,
                    "tokens": one.tokens,
                    "kl_mean": one.kl / one.tokens,
                    "perplexity_ratio": math.exp(min(700.0, (one.quantized_nll - one.parent_nll) / one.tokens)),
                    "same_top_rate": one.same_top / one.tokens,
                }
                for one in worst
            ],
        }


def kl_quantile(counts: Iterable[tuple[tuple[int, int], ...]], largest: float, quantile: float = QUANTILE) -> float:
    """The divergence that at most a share of 1 - `quantile` of all tokens exceeds: the upper edge of its bin, in nats.

    Args:
        counts: Of each document, as `DocumentRecord.kl_counts`.
        largest: The largest divergence of all, which no quantile exceeds.
        quantile: Between 0 and 1.
    """
    total: Counter[int] = Counter()
    for document in counts:
        for place, count in document:
            total[place] += count
    wanted = math.ceil(quantile * sum(total.values()))
    seen = 0
    for place in sorted(total):
        seen += total[place]
        if seen >= wanted:
            return min(_upper(place), largest)
    return largest


def _lower(place: int) -> float:
    return KL_EDGES[place - 1] if place else 0.0


def _upper(place: int) -> float:
    return KL_EDGES[place] if place < len(KL_EDGES) else math.inf
