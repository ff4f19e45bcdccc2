"""Decides about one write to an artifact store: refused where it would change a registered version's files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mlflow_quantgov.errors import ArtifactError, one_line
from mlflow_quantgov.gate.write_once import additions
from mlflow_quantgov.gate.write_once.folder_locks import FolderLocks
from mlflow_quantgov.gate.write_once.governed import Folders, Governed
from mlflow_quantgov.gate.write_once.places import Place, place_of


class WriteGuard:
    """Asked by every artifact repository of a server before, and again at the moment when, it writes.

    A repository that sends on to a server takes no locks: there the same write is asked for again, by its true place.
    """

    def __init__(self, engine: Engine) -> None:
        """Remember the registry's database."""
        self._governed = Governed(engine)
        self._locks = FolderLocks(engine)

    @contextmanager
    def writing(self, repository: Any, files: Mapping[str, Path | None]) -> Iterator[None]:
        """While files are published; nothing is decided about their folders meanwhile.

        Args:
            repository: Where they go.
            files: By their path inside the repository, what is to be written there; None where nobody has it yet.

        Raises:
            MlflowException: One of them belongs to a registered version, and is nothing that may be added.
        """
        places = [place for path in files for place in _places(repository, path)]
        with nullcontext() if isinstance(repository, HttpArtifactRepository) else self._locks.writing(places):
            folders = self._now()
            for path, content in files.items():
                _check(folders, repository, path, content)
            yield

    @contextmanager
    def deleting(self, repository: Any, path: str | None) -> Iterator[None]:
        """While a file or folder is deleted.

        Raises:
            MlflowException: It belongs to a registered version, or holds one.
        """
        places = _places(repository, path)
        with ExitStack() as held:
            for one in () if isinstance(repository, HttpArtifactRepository) else places:
                held.enter_context(self._locks.deleting(one))
            folders = self._now()
            if any(folders.within(one) or folders.holds(one) for one in places):
                raise _refused("deleted", path)
            yield

    def most_bytes(self, repository: Any, path: str) -> int | None:
        """Size of the largest addition at a path; None where it lies in no registered version's folder.

        Raises:
            MlflowException: It lies in one, and nothing may be added there.
        """
        inner = _inner(self._now(), repository, path)
        return None if inner is None else additions.most_bytes(inner)

    def _now(self) -> Folders:
        try:
            return self._governed.now()
        except SQLAlchemyError as error:
            raise _unknown() from error


def _check(folders: Folders, repository: Any, path: str, content: Path | None) -> None:
    """Refuse one file of a write, or let it through."""
    if any(folders.holds(one) for one in _places(repository, path)):
        raise _refused("replaced by a file", path)
    inner = _inner(folders, repository, path)
    if inner is None:
        return
    if content is None:
        raise _refused("changed", path, "only a whole file can be added")
    problem = additions.problem_of(inner, content)
    if problem is not None:
        raise _refused("given this file", path, problem)
    folder, name = os.path.split(path)
    beside = [one for one in repository.list_artifacts(folder or None) if not one.is_dir]
    before = next((one for one in beside if one.path.rsplit("/", 1)[-1] == name), None)
    if before is not None:
        # A client that got no answer sends again: the same bytes are no change.
        if not _is_equal(repository, path, content):
            raise _refused("changed", path, "what was added stays as it is")
        return
    size = sum(one.file_size or 0 for one in beside) + content.stat().st_size
    if len(beside) >= additions.MOST_FILES or (not additions.is_evidence(inner) and size > additions.MOST_BYTES):
        raise _refused("given this file", path, "there are too many beside the model already")


def _inner(folders: Folders, repository: Any, path: str) -> tuple[str, ...] | None:
    """Path inside a registered version's folder, where something may be added; None where it lies in none.

    Raises:
        MlflowException: It lies in one, and nothing may be added there. Where one version's folder lies inside another's,
            both have a say.
    """
    found = [one.inner for place in _places(repository, path) for one in folders.within(place)]
    if not all(additions.may_be_added(inner) for inner in found):
        raise _refused("changed", path)
    return found[0] if found else None


def _places(repository: Any, path: str | None) -> list[Place]:
    """Where a path of a repository lies; also where it would if its percent signs were taken for encoding, as some do."""
    try:
        root = place_of(repository.artifact_uri)
        spellings = dict.fromkeys([path or "", unquote(path or ""), unquote(unquote(path or ""))])
        return list(dict.fromkeys(root.below(one) for one in spellings))
    except (ArtifactError, ValueError) as error:
        raise MlflowException(f"quantgov refused: {error}", error_code=INVALID_PARAMETER_VALUE) from error


def _is_equal(repository: Any, path: str, content: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix="quantgov-same-") as scratch:
        there = Path(repository.download_artifacts(path, scratch))
        return there.read_bytes() == content.read_bytes()


def _refused(deed: str, path: str | None, why: str | None = None) -> MlflowException:
    reason = why or "it belongs to a registered model, and evidence and approvals are about these bytes"
    return MlflowException(
        f"quantgov refused: {one_line(path or 'this folder')[:300]} cannot be {deed}, because {reason}. "
        "Fix: log the model again; what is no longer needed is freed by deleting its version",
        error_code=PERMISSION_DENIED,
    )


def _unknown() -> MlflowException:
    return MlflowException(
        "quantgov refused: the registry's database does not answer, so nobody can tell whether these files belong to a "
        "registered version. Nothing was changed. Fix: try again",
        error_code=TEMPORARILY_UNAVAILABLE,
    )
