"""Bounded reading of files that others made: JSON, JSON lines, and the archives of Inspect."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, no_such_file
from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS

MAX_FILE_BYTES = 2 * 1024**3
MAX_DOCUMENT_BYTES = 512 * 1024**2
MAX_LINE_BYTES = 64 * 1024**2
MAX_LINES = MAX_ITEMS * 10
ZSTANDARD = 93
"""Compression method of a ZIP member; Python's own `zipfile` knows it from 3.14 on."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class FileOf:
    """A file that others made, with the remedy that its errors name.

    Args:
        path: Where it is.
        fix: What to do where it does not read.
    """

    def __init__(self, path: Path, fix: str) -> None:
        self.path = path
        self._fix = fix

    def bad(self, problem: str) -> UsageError:
        """The error for what cannot be imported."""
        return UsageError(f"{self.path.name}: {problem}.", why="Nothing was imported.", fix=self._fix)

    def check(self, most: int = MAX_FILE_BYTES) -> None:
        """Refuse what is no file, is empty or too large.

        Raises:
            UsageError: It is one of these.
        """
        if not self.path.is_file():
            raise no_such_file(self.path, "Nothing was imported.")
        size = self.path.stat().st_size
        if not size:
            raise self.bad("it is empty")
        if size > most:
            raise self.bad(f"it is larger than {most // 2**20:,} MB")

    def document(self) -> dict[str, Any]:
        """The JSON object in it.

        Raises:
            UsageError: It holds none.
        """
        self.check(MAX_DOCUMENT_BYTES)
        return self.parse(self.path.read_bytes(), "it")

    def parse(self, content: bytes, what: str) -> dict[str, Any]:
        """A JSON object.

        Args:
            content: UTF-8 text.
            what: Words for it in errors.

        Raises:
            UsageError: It is none.
        """
        try:
            found = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise self.bad(f"{what} is not JSON") from error
        if not isinstance(found, dict):
            raise self.bad(f"{what} is no object")
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of its lines; empty lines are passed over.

        Raises:
            UsageError: A line is none, or there are too many.
        """
        self.check()
        with self.path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number > MAX_LINES:
                    raise self.bad(f"it has more than {MAX_LINES:,} lines")
                if len(line) > MAX_LINE_BYTES:
                    raise self.bad(f"line {number} is longer than {MAX_LINE_BYTES // 2**20} MB")
                if line.strip():
                    yield self.parse(line, f"line {number}")


class Archive:
    """A ZIP archive, read member by member; nothing of it is ever written to a disk.

    Args:
        file: The archive.

    Raises:
        UsageError: It is none, holds too much, names a member twice or outside itself, or is encrypted.
    """

    def __init__(self, file: FileOf) -> None:
        file.check()
        self._file = file
        self._left = MAX_FILE_BYTES
        try:
            with zipfile.ZipFile(file.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise file.bad(f"it is no sound archive ({type(error).__name__})") from error
        if len(members) > MAX_LINES:
            raise file.bad(f"it has more than {MAX_LINES:,} members")
        self.members = {one.filename: one for one in members}
        if len(self.members) != len(members):
            raise file.bad("it names a member twice")
        for name, one in self.members.items():
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise file.bad(f"it names a member outside of itself ({name[:60]!r})")
            if one.flag_bits & 1:
                raise file.bad("it is encrypted")

    def read(self, name: str) -> dict[str, Any]:
        """The JSON object in a member.

        Raises:
            UsageError: It is none, or unpacks to more than it says, or than is read in all.
        """
        member = self.members[name]
        most = min(MAX_LINE_BYTES, self._left)
        if member.file_size > most:
            raise self._file.bad(f"{name[:60]} unpacks to more than {most // 2**20} MB")
        try:
            content = self._content(member)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, struct.error) as error:
            raise self._file.bad(f"{name[:60]} does not unpack ({type(error).__name__})") from error
        except Exception as error:
            if type(error).__module__ != "zlib":
                raise
            raise self._file.bad(f"{name[:60]} does not unpack") from error
        if len(content) != member.file_size:
            raise self._file.bad(f"{name[:60]} does not unpack to the size that it states")
        self._left -= len(content)
        return self._file.parse(content, name[:60])

    def _content(self, member: zipfile.ZipInfo) -> bytes:
        if member.compress_type != ZSTANDARD:
            with zipfile.ZipFile(self._file.path) as archive, archive.open(member) as stream:
                return stream.read(member.file_size + 1)
        import pyarrow as pa  # comes with MLflow, and unpacks Zstandard

        with self._file.path.open("rb") as file:
            file.seek(member.header_offset)
            mark, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if mark != b"PK\x03\x04":
                raise zipfile.BadZipFile("no local header")
            file.seek(name + extra, 1)
            packed = file.read(min(member.compress_size, MAX_LINE_BYTES))
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            return bytes(stream.read(member.file_size + 1))
