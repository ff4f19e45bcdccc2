"""Opens what a small file describes: a model that somebody else serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.endpoint.description import SCHEMA, is_description, read_endpoint
from mlflow_quantgov.artifact.runtimes.endpoint.runtime import NAME, EndpointRuntime
from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter


class EndpointAdapter(RuntimeAdapter):
    """An OpenAI-compatible endpoint."""

    name = NAME

    def reason_not_loadable(self, path: Path) -> str | None:
        """None for a file that describes an endpoint; model files are not loaded by asking a server."""
        if is_description(path):
            return None
        return f"{path.name} is no YAML or JSON file with `schema: {SCHEMA}`; which bytes a server runs cannot be seen"

    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> EndpointRuntime:
        """Reach an endpoint.

        Args:
            path: A file that describes it; any path where the settings name its `url`.
            cache: Not used.
            **settings: Fields of `Endpoint`, which overrule the file.

        Raises:
            UnreachableError: The server is down or is none of this kind.
            ArtifactError: The file does not describe an endpoint.
            UsageError: A setting is unknown or out of range, or the server does not serve the model.
        """
        return EndpointRuntime(read_endpoint(path, settings))
