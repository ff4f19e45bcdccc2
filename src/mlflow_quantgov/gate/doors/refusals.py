"""How a refusal leaves the store, and is taken apart where it is shown."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from mlflow_quantgov.errors import visible


def refusal(message: str) -> MlflowException:
    """The error of a refusal: REST turns it into 403; one line, whatever the names in it hold."""
    return MlflowException(" ".join(visible(message).split()), error_code=PERMISSION_DENIED)


def said_and_fix(message: str) -> tuple[str, str]:
    """What a refusal says, and how to mend it; the latter is empty where it names nothing."""
    said, _, fix = message.partition(" Fix: ")
    return said, fix
