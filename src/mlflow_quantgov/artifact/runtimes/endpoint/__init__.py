"""Somebody else's server behind an OpenAI-compatible endpoint: it answers, and which bytes it runs cannot be seen."""

from __future__ import annotations

from mlflow_quantgov.artifact.runtimes.endpoint.adapter import EndpointAdapter
from mlflow_quantgov.artifact.runtimes.endpoint.runtime import EndpointRuntime

__all__ = ["EndpointAdapter", "EndpointRuntime"]
