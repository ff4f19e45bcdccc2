"""In which of MLflow's workspaces something happens."""

from __future__ import annotations

import os

from mlflow.utils.workspace_context import get_request_workspace

DEFAULT = "default"


def enabled() -> bool:
    """Whether this process keeps models of several workspaces apart."""
    return os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in {"1", "true"}


def current() -> str:
    """The workspace of the request; MLflow's default one where there is none."""
    return (get_request_workspace() if enabled() else None) or DEFAULT
