"""An archive in any store that fsspec reaches: S3, Google Cloud Storage, Azure, SFTP, WebDAV and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from mlflow_quantgov.artifact.weights import CHUNK
from mlflow_quantgov.errors import TamperingError, UnreachableError, UsageError, one_line, require
from mlflow_quantgov.evidence.measure.archive.place import Place

WORKERS = 8
"""Each waits for the network most of the time; no more than one where a store has a single connection."""
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"}
"""Here a name with slashes needs no folders, and asking for one may make a bucket."""

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
             "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "oci": "ocifs", "oss": "ossfs"}  # fmt: skip


class RemotePlace(Place):
    """A URL. A store of objects puts each whole or not at all; elsewhere a half-written file is found by its digest, and replaced."""

    def __init__(self, url: str) -> None:
        """Open a store; nothing is sent yet.

        Raises:
            MissingExtraError: fsspec is not installed.
            UsageError: Nobody knows the scheme, or the package that does is not installed.
        """
        fsspec = require("fsspec", extra="remote", purpose=f"keep an archive at {scheme_of(url)}://")
        self.url = without_credentials(url)
        self._secrets = _secrets(url)
        try:
            self._store, self._root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise _no_package(scheme_of(url), error) from error
        except Exception as error:  # each store has errors of its own
            if scheme_of(url) not in fsspec.available_protocols():
                raise _no_package(scheme_of(url), error) from error
            raise self._failed(error, "opened") from error
        self._makes_folders = scheme_of(url) not in _OBJECT_STORES
        # Clients of FTP, SFTP and SMB have one connection, and mix up the answers of two threads.
        together = getattr(self._store, "async_impl", False) or scheme_of(url) in _OBJECT_STORES
        self.workers = WORKERS if together else 1

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Place`."""
        try:
            data: bytes = self._store.cat_file(self._path(name), start=0, end=limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            if self._is_empty(name):
                return b""
            raise self._failed(error, "read") from error
        if len(data) > limit:
            raise TamperingError(f"{name} is longer than it can be.")
        return data

    def stream(self, name: str) -> Iterator[bytes] | None:
        """See `Place`."""
        try:
            reader = self._store.open(self._path(name), "rb", block_size=CHUNK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise self._failed(error, "read") from error
        return self._parts(reader)

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        path = self._path(name)
        try:
            if self._makes_folders:
                self._store.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            self._store.pipe_file(path, data)
        except Exception as error:
            raise self._failed(error, "written") from error

    def free_bytes(self) -> int | None:
        """See `Place`."""
        return None

    def writing(self) -> AbstractContextManager[None]:
        """See `Place`."""
        return nullcontext()

    def _is_empty(self, name: str) -> bool:
        """Whether a file has no bytes: some stores take it for an error that somebody asks for its first ones."""
        with suppress(Exception):  # each store has errors of its own; that of reading is the one to report
            return bool(self._store.size(self._path(name)) == 0)
        return False

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _parts(self, reader: Any) -> Iterator[bytes]:
        with reader:
            try:
                while part := reader.read(CHUNK):
                    yield part
            except Exception as error:
                raise self._failed(error, "read") from error

    def _failed(self, error: Exception, what: str) -> UnreachableError:
        """One line about somebody else's error, without what the URL may hold of secrets."""
        said = one_line(str(error))
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return UnreachableError(
            f"The archive {self.url} cannot be {what}: {type(error).__name__} {said[:200]}".rstrip(" .") + ".",
            why="What was archived before is untouched, and counts when it goes on.",
            fix="see that the bucket or folder exists and that the store's own credentials are in the environment, then try again",
        )


def _secrets(url: str) -> list[str]:
    """Parts of a URL that no message may repeat, the longest first, as they stand in it and as they are read.

    A user's name of a few letters is left: it stands in too many words.
    """
    parts = urlsplit(url)
    found = [
        parts.username if len(parts.username or "") > 7 else None,
        parts.password,
        parts.query,
        parts.fragment,
        *(value for _, value in parse_qsl(parts.query)),
    ]
    return sorted({form for one in found if one for form in (one, unquote(one))}, key=len, reverse=True)


def scheme_of(url: str) -> str:
    """Scheme of a URL, in lower case; empty for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    return found[1].lower() if found else ""


def without_credentials(url: str) -> str:
    """A URL without user, password, query and fragment, any of which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _no_package(scheme: str, error: Exception) -> UsageError:
    """The error for a kind of store that nothing installed here reaches; fsspec says what would."""
    package = _PACKAGES.get(scheme)
    return UsageError(
        f"No installed package reaches {scheme}:// ({one_line(str(error))[:200]}).",
        why="Nothing was archived or restored.",
        fix=f"pip install {package}" if package else "name a folder, or a URL of a store that fsspec knows",
    )
