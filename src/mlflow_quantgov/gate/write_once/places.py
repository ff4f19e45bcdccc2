"""Where bytes physically lie, whatever URI leads there: two spellings of one place compare equal."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow_quantgov.errors import ArtifactError

LOCAL = "file"
DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
"""MLflow's own server hands its `--artifacts-destination` to its workers under this name (mlflow/server/__init__.py)."""
_ROUTE = "/mlflow-artifacts/artifacts"
# One account under two schemes: a blob container, and the same container as a data lake.
_AZURE = {"wasbs", "abfss"}


@dataclass(frozen=True)
class Place:
    """A file or folder of one store."""

    store: str
    """`file`, or scheme and authority such as `s3://bucket`."""
    parts: tuple[str, ...]

    def below(self, path: str | None) -> Place:
        """A place inside this one.

        Args:
            path: Relative, with forward slashes; None for this place itself.

        Raises:
            ArtifactError: It leads out again.
        """
        names = [name for name in (path or "").split("/") if name not in {"", "."}]
        if ".." in names:
            raise _leads_out(str(path))
        if self.store == LOCAL:
            return _local(Path("/", *self.parts, *names))
        return Place(self.store, (*self.parts, *names))

    def upwards(self) -> Iterator[Place]:
        """This place and every folder above it, the innermost first."""
        for count in range(len(self.parts), -1, -1):
            yield Place(self.store, self.parts[:count])

    @property
    def path(self) -> Path:
        """On this machine; only of a `file` place."""
        return Path("/", *self.parts)

    @property
    def folded(self) -> Place:
        """Equal for local names that a file system without upper and lower case would take for the same."""
        if self.store != LOCAL:
            return self
        return Place(self.store, tuple(unicodedata.normalize("NFC", name).casefold() for name in self.parts))

    def __str__(self) -> str:
        """For messages."""
        return "/".join(self.parts[-4:]) or self.store


def place_of(uri: str) -> Place:
    """The place that a URI or a path of artifacts leads to.

    What a server serves (`mlflow-artifacts:`, or its route over HTTP) lies in the destination of this server, whatever
    host is named: one server has many names.

    Raises:
        ArtifactError: It leads out of its store by `..`.
    """
    parsed = urlparse(uri)
    scheme = parsed.scheme.lower()
    if scheme in {"", "file"} or len(scheme) == 1:
        # As MLflow's local repository does it: percent signs are taken for encoding in plain paths, too.
        return _local(Path(unquote(parsed.path if scheme == "file" else uri)))
    if scheme == "mlflow-artifacts":
        return _served(parsed.path)
    if scheme in {"http", "https"} and _ROUTE in parsed.path:
        return _served(parsed.path.split(_ROUTE, 1)[1])
    if scheme in _AZURE:
        account = parsed.netloc.lower().split(".", 1)[0]
        return Place(f"azure://{account}", ()).below(parsed.path)
    return Place(f"{scheme}://{parsed.netloc}", ()).below(parsed.path)


def _served(path: str) -> Place:
    destination = os.environ.get(DESTINATION)
    root = place_of(destination) if destination else Place("mlflow-artifacts", ())
    return root.below(unquote(path))


def _local(path: Path) -> Place:
    return Place(LOCAL, Path(os.path.realpath(path)).parts[1:])


def _leads_out(path: str) -> ArtifactError:
    return ArtifactError(
        f"{path[:200]!r} leads out of its folder.",
        why="Whether a registered model lies there cannot be told.",
        fix="name the artifact by a path without `..`",
    )
