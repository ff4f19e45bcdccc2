"""Quantization-aware training that a width below four bit rests on."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from mlflow_quantgov.evidence.predicates.base import Digest, Predicate, ShortText

Named = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
VersionUri = Annotated[str, Field(pattern=r"^models:/[^/@]{1,300}/[0-9]{1,9}$")]


class TrainingV1(Predicate):
    """The statement as it was before it said where the checkpoint is registered; read, and no longer enough."""

    KIND: ClassVar[str] = "training"

    run: ShortText
    """MLflow run id or another name under which the run can be found."""
    checkpoint: Digest
    """Weights digest of the trained checkpoint: its latent full-precision weights, itself a registered version."""
    steps: int = Field(ge=1)
    data_digest: Digest
    """Of the training data."""
    code_version: ShortText
    """Commit or release of the training code."""
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Steps of training."""
        return {"steps": self.steps}


class Training(TrainingV1):
    """Which training run made the checkpoint that these weights are rounded from. Subject: the quantized model's weights."""

    VERSION: ClassVar[int] = 2

    run: Named
    checkpoint_uri: VersionUri
    """The registered version that holds the checkpoint, `models:/NAME/VERSION`."""
    code_version: Named
