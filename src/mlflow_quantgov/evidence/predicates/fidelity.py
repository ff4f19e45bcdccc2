"""How far the quantized model's next-token distributions lie from the parent's."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Digest, Finite, Predicate, Record, Side


class DocumentRecord(Record):
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


class Fidelity(Predicate):
    """KL divergence, same-top-token rate and perplexity against the parent. Reported, never sufficient alone."""

    KIND: ClassVar[str] = "fidelity"

    parent: Side
    quantized: Side
    data: Digest
    """Digest of the text file that was scored."""
    settings: dict[str, Any]
    documents: tuple[DocumentRecord, ...] = Field(min_length=1, max_length=MAX_ITEMS)
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
