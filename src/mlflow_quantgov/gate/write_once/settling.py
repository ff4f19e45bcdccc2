"""Nothing is decided about files that are still being written: mixed into the store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlflow_quantgov.errors import ArtifactError, short
from mlflow_quantgov.gate.facts.addresses import MEND, oddity
from mlflow_quantgov.gate.facts.sources import resolved
from mlflow_quantgov.gate.write_once.folder_locks import FolderLocks
from mlflow_quantgov.gate.write_once.governed import covers_others
from mlflow_quantgov.gate.write_once.places import Place, place_of

Result = TypeVar("Result")


class Settling:
    """Waits for uploads that began before a version was registered."""

    @cached_property
    def _folders(self: Any) -> FolderLocks:
        return FolderLocks(self.engine)

    def _settle(self: Any, name: str, version: str) -> None:
        """Until every write to a registered version's files that began before its registration has ended."""
        place = _place(self.reference(name, version).location)
        if place is not None:
            with self._folders.alone(place):
                pass

    def _undisturbed(self: Any, source: str, create: Callable[[], Result]) -> Result:
        """Judge and create a version while nobody may write to its files, which are not protected before it is registered."""
        place = _place(resolved(self.engine, source) or source)
        if place is None:
            return create()
        with self._folders.alone(place):
            return create()

    def _refuse_source(self: Any, source: str) -> None:
        """Refuse a version whose files two readers might look for in two places, or one that would take in other people's."""
        for address in (source, resolved(self.engine, source)):
            odd = oddity(address) if address is not None else None
            if odd is not None:
                raise MlflowException(
                    f"quantgov refused: the address of its files can be read in two ways: {odd} ({short(address)}). Fix: {MEND}",
                    error_code=INVALID_PARAMETER_VALUE,
                )
        if source.startswith(("models:", "runs:")):
            return
        covered = covers_others(self.engine, source)
        if covered is not None:
            raise MlflowException(
                f"quantgov refused: {source[:200]} holds the artifacts of others ({covered}), and the files of a registered "
                "version cannot be changed any more. Fix: name the folder of the model itself",
                error_code=INVALID_PARAMETER_VALUE,
            )


def _place(uri: str | None) -> Place | None:
    """Where a version's files lie; None where that is said by an id, or nowhere."""
    if not uri or uri.startswith(("models:", "runs:")):
        return None
    try:
        return place_of(uri)
    except (ArtifactError, ValueError):
        return None
