"""Where the files of an archive lie: the few things that an archive asks of a folder or an object store."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mlflow_quantgov.artifact.weights import CHUNK
from mlflow_quantgov.errors import ArtifactError, TamperingError, UnreachableError

SCRATCH = "writing"
"""Folder of half-written files; each writer has one of its own in it, and holds a lock on it while it lives."""


class Place(ABC):
    """Files by name (`chunks/ab/abcd...`); one that is written appears whole or not at all."""

    url: str
    """Where it lies, without credentials."""
    workers: int
    """Pieces that are worth working on at once."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes | None:
        """A whole file; None where it is not there.

        Raises:
            TamperingError: It is longer than `limit`, or the disk cannot read it any more.
            UnreachableError: The store does not answer, or does not let us in.
        """

    @abstractmethod
    def stream(self, name: str) -> Iterator[bytes] | None:
        """A file of any length, part by part; None where it is not there."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of an earlier one.

        Raises:
            ArtifactError: There is no room, or it cannot be written there.
            UnreachableError: The store does not answer, or does not let us in.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody can tell."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Held while files are written; what killed writers left is removed first."""


class LocalPlace(Place):
    """A folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.resolve().as_uri()
        self.workers = min(4, os.cpu_count() or 1)
        self._scratch: Path | None = None

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Place`."""
        try:
            with (self.folder / name).open("rb") as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:  # of this user, and no damage
            raise UnreachableError(
                f"The archive {self.folder} cannot be read: {error.strerror}.",
                why="Whether it is sound is not known.",
                fix=f"ls -l {self.folder / name}",
            ) from error
        except OSError as error:
            raise TamperingError(f"{name} cannot be read: {error.strerror or error}.") from error
        if len(data) > limit:
            raise TamperingError(f"{name} is longer than it can be.")
        return data

    def stream(self, name: str) -> Iterator[bytes] | None:
        """See `Place`."""
        return _parts(self.folder / name) if (self.folder / name).is_file() else None

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        assert self._scratch is not None, "only inside `writing`"
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._scratch / uuid.uuid4().hex
            try:
                with scratch.open("xb") as writer:
                    writer.write(data)
                    writer.flush()
                    os.fsync(writer.fileno())
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
            _sync_folder(path.parent)  # else a power cut takes the name back
        except OSError as error:
            raise self._unwritable(error) from error

    def free_bytes(self) -> int | None:
        """See `Place`."""
        existing = next((one for one in (self.folder, *self.folder.parents) if one.is_dir()), None)
        return shutil.disk_usage(existing).free if existing else None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`."""
        try:
            (self.folder / SCRATCH).mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            own, lock = self._own_folder()
        except OSError as error:
            raise self._unwritable(error) from error
        self._scratch = own
        try:
            yield
        finally:
            self._scratch = None
            shutil.rmtree(own, ignore_errors=True)
            os.close(lock)

    def _own_folder(self) -> tuple[Path, int]:
        """A locked folder; made again where somebody tidied it away before the lock was ours."""
        while True:
            own = Path(tempfile.mkdtemp(dir=self.folder / SCRATCH))
            lock = os.open(own, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = own.is_dir()
            except BlockingIOError:  # somebody is about to tidy it away
                ours = False
            except OSError:  # some network file systems know no locks: then nobody tidies either
                ours = True
            if ours:
                return own, lock
            os.close(lock)

    def _remove_leftovers(self) -> None:
        """Remove the folders of writers that ended without doing so: nobody holds their locks."""
        for left in (self.folder / SCRATCH).iterdir():
            try:
                lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            except OSError:
                continue
            finally:
                os.close(lock)

    def _unwritable(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            f"The archive {self.folder} cannot be written: {error.strerror or error}.",
            why="What was archived before is untouched, and counts when it goes on.",
            fix=f"df -h {self.folder}; ls -ld {self.folder}; or export QUANTGOV_ARCHIVE=/path/to/archive",
        )


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as reader:
        while True:
            try:
                part = reader.read(CHUNK)
            except OSError as error:
                raise TamperingError(f"{path.name} cannot be read: {error.strerror or error}.") from error
            if not part:
                return
            yield part


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
