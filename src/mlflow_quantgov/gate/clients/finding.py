"""Find the gate from a client: over HTTP where a gated server runs, in process where the store is `quantgov:`."""

from __future__ import annotations

import re

import mlflow
import requests

from mlflow_quantgov.errors import QuantgovError, UnreachableError, no_answer
from mlflow_quantgov.gate.clients.http_gate import HttpGate, NotSignedInError
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.gate.clients.store_gate import StoreGate


def find_gate() -> Gate | None:
    """The gate in front of the registry that MLflow is set to, or None where nothing is gated.

    Raises:
        UnreachableError: The server does not answer at all.
    """
    uri = mlflow.get_registry_uri()
    if uri.startswith("quantgov:"):
        return StoreGate(uri)
    if re.match(r"^[\w.-]+:\d+(/|$)", uri):
        raise UnreachableError(
            f"{uri} is no address of a server.",
            why="It lacks its scheme.",
            fix=f"export MLFLOW_TRACKING_URI=http://{uri}",
        )
    if not uri.startswith(("http://", "https://")):
        return None
    gate = HttpGate(uri)
    try:
        gate.status()
    except NotSignedInError:
        raise
    except QuantgovError:
        _must_answer(uri)
        return None
    return gate


def require_gate(purpose: str) -> Gate:
    """The gate, or an error that says that nothing is gated.

    Raises:
        UnreachableError: Nothing is gated, or the server does not answer.
    """
    gate = find_gate()
    if gate is None:
        raise UnreachableError(
            f"The registry {mlflow.get_registry_uri()} is not gated.",
            why=f"Only a gated server can {purpose}.",
            fix="quantgov doctor",
        )
    return gate


def _must_answer(uri: str) -> None:
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=10)
        if answer.status_code in {401, 403}:
            raise NotSignedInError(uri)
        if not answer.ok or answer.text.strip() != "OK":
            raise UnreachableError(
                f"{uri} is no MLflow server: its /health answers {answer.status_code}.",
                why="Nothing was changed.",
                fix="export MLFLOW_TRACKING_URI=http://127.0.0.1:5000   (the address of your MLflow server)",
            )
    except requests.RequestException as error:
        raise no_answer(uri, type(error).__name__) from error
