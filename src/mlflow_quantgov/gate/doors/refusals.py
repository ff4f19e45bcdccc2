"""How a refusal leaves the store."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from mlflow_quantgov.errors import visible


def refusal(message: str) -> MlflowException:
    """The error of a refusal: REST turns it into 403; one line, whatever the names in it hold."""
    return MlflowException(" ".join(visible(message).split()), error_code=PERMISSION_DENIED)
