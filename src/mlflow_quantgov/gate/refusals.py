"""How a refusal leaves the store."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED


def refusal(message: str) -> MlflowException:
    """The error of a refusal: REST turns it into 403."""
    return MlflowException(message, error_code=PERMISSION_DENIED)
