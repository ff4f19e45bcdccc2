"""Quantization-aware training that a width below four bit rests on."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import Digest, Predicate, ShortText


class Training(Predicate):
    """Which training run made these weights. Subject: the quantized model's weights."""

    KIND: ClassVar[str] = "training"

    run: ShortText
    """MLflow run id or another name under which the run can be found."""
    checkpoint: Digest
    """Weights digest of the trained full-precision checkpoint, itself a registered version."""
    steps: int = Field(ge=1)
    data_digest: Digest
    code_version: ShortText
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Steps of training."""
        return {"steps": self.steps}
