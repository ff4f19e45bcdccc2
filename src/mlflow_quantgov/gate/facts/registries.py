"""What gathering needs of a registry: the store on the server, a client elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from mlflow_quantgov.flavor.download import search_versions
from mlflow_quantgov.gate.facts.sources import VersionRef


class Registry(Protocol):
    """Says what identifies versions."""

    def reference(self, name: str, version: str) -> VersionRef:
        """One version."""

    def references(self, name: str) -> Iterable[VersionRef]:
        """Every version of a model."""


class ClientRegistry:
    """A registry as a plain MLflow client sees it."""

    def __init__(self, client: Any) -> None:
        """Use a client: MLflow's, or what stands behind it."""
        self._client = client

    def reference(self, name: str, version: str) -> VersionRef:
        """See `Registry`."""
        return self.of(self._client.get_model_version(name, version))

    def references(self, name: str) -> Iterable[VersionRef]:
        """See `Registry`."""
        return [self.of(one) for one in search_versions(self._client.search_model_versions, name)]

    def of(self, version: Any) -> VersionRef:
        """What identifies one of MLflow's model versions."""
        where = self._client.get_model_version_download_uri(version.name, str(version.version))
        return VersionRef(version.name, str(version.version), version.source, int(version.creation_timestamp), where)
