"""Where the files of an archive lie: the few things that an archive asks of a folder or an object store."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from mlflow_quantgov.artifact.weights import CHUNK
from mlflow_quantgov.errors import (
    ArtifactError,
    QuantgovError,
    TamperingError,
    UnreachableError,
    UsageError,
    one_line,
    short,
)
from mlflow_quantgov.evidence.measure.archive.scratch import held_folder

SCRATCH = "writing"
"""Folder of half-written files; each writer has one of its own in it, and holds a lock on it while it lives."""
_OF_THE_DISK = {errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ELOOP, errno.EISDIR}
"""What says that a file itself is broken; whatever else fails (rights, a share that is gone, too many open files) says nothing
about it."""


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
        try:
            self.url = folder.resolve().as_uri()
        except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that no file system takes
            raise UsageError(
                f"{short(str(folder))} can be no archive: {one_line(str(error))[:200]}.",
                why="The full-precision weights must lie where they are found again.",
                fix="export QUANTGOV_ARCHIVE=/path/to/archive",
            ) from error
        self.folder = folder
        self.workers = min(4, os.cpu_count() or 1)
        self._scratch: Path | None = None

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Place`."""
        try:
            with _open_file(self.folder / name) as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error
        if len(data) > limit:
            raise TamperingError(f"{name} is longer than it can be.")
        return data

    def stream(self, name: str) -> Iterator[bytes] | None:
        """See `Place`."""
        try:
            reader = _open_file(self.folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error
        return self._parts(name, reader)

    def _parts(self, name: str, reader: BinaryIO) -> Iterator[bytes]:
        with reader:
            try:
                while part := reader.read(CHUNK):
                    yield part
            except OSError as error:
                raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: OSError) -> QuantgovError:
        said = error.strerror or str(error)
        if error.errno in _OF_THE_DISK:
            return TamperingError(f"{name} cannot be read: {said}.")
        return UnreachableError(
            f"The archive {self.folder} cannot be read: {said}.",
            why="Whether it is sound is not known.",
            fix=f"ls -l {self.folder / name}",
        )

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        assert self._scratch is not None, "only inside `writing`"
        path = self.folder / name
        try:
            _make_folder(path.parent)
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
        try:
            existing = next((one for one in (self.folder, *self.folder.parents) if one.is_dir()), None)
            return shutil.disk_usage(existing).free if existing else None
        except OSError:
            return None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`."""
        with ExitStack() as held:
            try:
                (self.folder / SCRATCH).mkdir(parents=True, exist_ok=True)
                self._scratch = held.enter_context(held_folder(self.folder / SCRATCH, "tmp"))
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                yield
            finally:
                self._scratch = None

    def _unwritable(self, error: OSError) -> ArtifactError:
        return ArtifactError(
            f"The archive {self.folder} cannot be written: {error.strerror or error}.",
            why="What was archived before is untouched, and counts when it goes on.",
            fix=f"df -h {self.folder}; ls -ld {self.folder}; or export QUANTGOV_ARCHIVE=/path/to/archive",
        )


def _open_file(path: Path) -> BinaryIO:
    """A file for reading; a pipe that somebody put there would never end, nor open."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EISDIR, "it is no file")
    return os.fdopen(descriptor, "rb")


def _make_folder(folder: Path) -> None:
    """Make a folder with those above it, so that a power cut leaves none of them out."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
