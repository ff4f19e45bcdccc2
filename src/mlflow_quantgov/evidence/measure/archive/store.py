"""A content-addressed archive: files in pieces, each piece once, under the sha256 of its plain bytes.

```
chunks/ab/<sha256>        one piece, coded (coding.py)
files/ab/<sha256>.json    of which pieces a file is made
manifests/<digest>.json   which files a model has; written last
answers/<digest>.json     what it answered in drills, by digests
blobs/ab/<sha256>         a whole file, as archives before these had it: still read
```
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest
from mlflow_quantgov.errors import ArtifactError, TamperingError, UsageError, short
from mlflow_quantgov.evidence.measure.archive.coding import MAX_CODED, CodingError, decode, encode
from mlflow_quantgov.evidence.measure.archive.cutting import Piece, cut
from mlflow_quantgov.evidence.measure.archive.names import answers_name, blob_name, chunk_name, file_name, manifest_name
from mlflow_quantgov.evidence.measure.archive.place import LocalPlace, Place
from mlflow_quantgov.evidence.measure.archive.records import (
    MAX_RECORD,
    Answer,
    PieceRecord,
    answers_record,
    file_record,
    read_answers_record,
    read_file_record,
)

Advance = Callable[[int], None]
"""Called with the number of plain bytes that are done."""


@dataclass
class Kept:
    """What putting files has cost so far."""

    pieces: int = 0
    new_pieces: int = 0
    new_bytes: int = 0
    """Plain bytes of the new pieces."""
    stored_bytes: int = 0
    """Bytes that the new pieces take."""
    repaired: int = 0
    """Damaged pieces that were replaced."""


class ArchiveStore:
    """An archive at some place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = Lock()
        self._computing = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        """Coding takes many times the memory of a piece, and each thread keeps its own: more may wait for a network."""

    @property
    def url(self) -> str:
        """Where the archive lies, without credentials."""
        return self._place.url

    def writing(self) -> AbstractContextManager[None]:
        """Held while something is put; what killed writers left is removed first."""
        return self._place.writing()

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody can tell."""
        return self._place.free_bytes()

    def put(self, source: Path, entry: FileEntry, kept: Kept, advance: Advance) -> None:
        """Store one file. Pieces that lie there already are read back; damaged ones are replaced.

        Args:
            source: The file.
            entry: What the manifest says of it.
            kept: Added to.
            advance: Told about bytes that are done.

        Raises:
            ArtifactError: The file changed meanwhile, or the disk is full.
        """
        name = file_name(entry.sha256)
        held = self._read_or_none(name, MAX_RECORD)
        if held is None and self._is_whole_blob(entry):
            advance(entry.size)
            return
        seen: set[str] = set()
        pieces: list[PieceRecord] = []
        whole = hashlib.sha256()

        def keep(piece: Piece) -> PieceRecord:
            found = self._put_piece(piece, seen, kept)
            advance(found.size)
            return found

        try:
            with ThreadPoolExecutor(self._place.workers) as workers:
                waiting: deque[Future[PieceRecord]] = deque()
                for piece in cut(source):
                    waiting.append(workers.submit(keep, piece))
                    whole.update(piece.data)
                    if len(waiting) > 2 * self._place.workers:  # no more than that is in memory
                        pieces.append(waiting.popleft().result())
                pieces += [one.result() for one in waiting]
        except OSError as error:
            raise ArtifactError(
                f"{entry.path} cannot be read: {error.strerror or error}.",
                why="What was archived before is untouched.",
                fix=f"ls -l {source}",
            ) from error
        if whole.hexdigest() != entry.sha256:
            raise ArtifactError(
                f"{entry.path} changed while it was archived.",
                why="Only the bytes that were logged may come back. What was archived before is untouched.",
                fix="quantgov archive models:/NAME/VERSION   (again, once nobody writes there)",
            )
        record = file_record(pieces)
        if held != record:
            _check_it_reads(record, entry)
            self._place.write(name, record)

    def _put_piece(self, piece: Piece, seen: set[str], kept: Kept) -> PieceRecord:
        sha256 = hashlib.sha256(piece.data).hexdigest()
        record = PieceRecord(sha256, len(piece.data), piece.tensor)
        with self._lock:
            kept.pieces += 1
            repeated = sha256 in seen
            seen.add(sha256)
        if repeated:
            return record
        held = self._read_or_none(chunk_name(sha256), MAX_CODED)
        if held is not None and self._computing.submit(_gives, held, piece.data).result():
            return record
        coded = self._computing.submit(_coded, piece).result()
        self._place.write(chunk_name(sha256), coded)
        with self._lock:
            kept.repaired += held is not None
            kept.new_pieces += 1
            kept.new_bytes += len(piece.data)
            kept.stored_bytes += len(coded)
        return record

    def put_manifest(self, manifest: Manifest) -> None:
        """Store a manifest after its files, so that whoever finds it finds them.

        One that lies there already is not written again: where a store does not write in one step, that would put it at risk.
        """
        name, data = manifest_name(manifest.digest), manifest.to_json().encode()
        if self._read_or_none(name, MAX_RECORD) != data:
            self._place.write(name, data)

    def manifest(self, digest: str) -> Manifest:
        """A stored manifest.

        Raises:
            UsageError: It was never archived here.
            TamperingError: It is not the one that its name says.
        """
        name = manifest_name(digest)
        try:
            data = self._place.read(name, MAX_RECORD)
        except TamperingError as error:
            raise self._changed_manifest(name) from error
        if data is None:
            raise UsageError(
                f"The archive {self.url} does not hold {digest[:19]}.",
                why="What was not archived cannot be brought back.",
                fix="quantgov archive models:/NAME/VERSION",
            )
        try:
            manifest = Manifest.from_json(data.decode())
        except (ArtifactError, UnicodeDecodeError) as error:
            raise self._changed_manifest(name) from error
        if manifest.digest != digest:
            raise self._changed_manifest(name)
        return manifest

    def get(self, entry: FileEntry, destination: Path, advance: Advance) -> None:
        """Bring one file back, each piece verified; the file as a whole is the caller's to verify.

        Raises:
            TamperingError: Something is missing or has changed; file and tensor are named.
            OSError: The destination cannot be written.
        """
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            record = self._place.read(file_name(entry.sha256), MAX_RECORD)
            pieces = None if record is None else read_file_record(record, entry.size)
        except (ValueError, TamperingError) as error:
            raise self.damaged(f"{entry.path}: the list of its pieces has changed in the archive") from error
        if pieces is None:
            self._get_blob(entry, destination, advance)
            return
        problems: list[str] = []
        with destination.open("wb") as writer, ThreadPoolExecutor(self._place.workers) as workers:
            writer.truncate(entry.size)
            waiting: deque[Future[str | None]] = deque()
            offset = 0
            for piece in pieces:
                waiting.append(workers.submit(self._get_piece, piece, writer.fileno(), offset, advance))
                offset += piece.size
                if len(waiting) > 2 * self._place.workers:
                    problems += filter(None, [waiting.popleft().result()])
            problems += filter(None, [one.result() for one in waiting])
        if problems:
            more = f" (and {len(problems) - 1} more of {len(pieces)} pieces)" if len(problems) > 1 else ""
            raise self.damaged(f"{entry.path}: {problems[0]}{more}")

    def _get_piece(self, piece: PieceRecord, descriptor: int, offset: int, advance: Advance) -> str | None:
        """Write one piece to its place; None, or what is wrong with it."""
        where = f"tensor {short(piece.tensor, quoted=False)}" if piece.tensor else f"the part from byte {offset:,}"
        where = f"{where} (chunk {piece.sha256[:12]})"
        problem = None
        try:
            held = self._place.read(chunk_name(piece.sha256), MAX_CODED)
            data = b"" if held is None else self._computing.submit(decode, held).result()
            if held is None:
                problem = "is missing from the archive"
            elif hashlib.sha256(data).hexdigest() != piece.sha256:
                problem = "has changed in the archive"
        except (CodingError, TamperingError) as error:
            problem = f"has changed in the archive ({str(error).rstrip('.')})"
        if problem:
            return f"{where} {problem}"
        _write_at(descriptor, data, offset)
        advance(piece.size)
        return None

    def _get_blob(self, entry: FileEntry, destination: Path, advance: Advance) -> None:
        hasher, left = hashlib.sha256(), entry.size
        try:
            parts = self._place.stream(blob_name(entry.sha256))
            if parts is not None:
                with destination.open("wb") as writer:
                    for part in parts:
                        left -= len(part)
                        if left < 0:  # it may be endless
                            break
                        hasher.update(part)
                        writer.write(part)
                        advance(len(part))
        except TamperingError as error:
            raise self.damaged(f"{entry.path}: {error.what.rstrip('.')}") from error
        if parts is None:
            raise self.damaged(f"{entry.path} is missing from the archive")
        if left or hasher.hexdigest() != entry.sha256:
            raise self.damaged(f"{entry.path} has changed in the archive")

    def answers(self, digest: str) -> list[Answer]:
        """Answers that drills have recorded; none where the record cannot be read."""
        try:
            data = self._place.read(answers_name(digest), MAX_RECORD)
            return read_answers_record(data) if data is not None else []
        except (ValueError, TamperingError):
            return []

    def put_answers(self, digest: str, answers: list[Answer]) -> None:
        """Record answers in place of those that were recorded before."""
        with self.writing():
            self._place.write(answers_name(digest), answers_record(answers))

    def damaged(self, what: str) -> TamperingError:
        """The error for something that did not come back."""
        return TamperingError(f"{what}.", why="A rollback to these bytes would fail.", fix=self.repair())

    def repair(self) -> str:
        """How what is damaged is replaced."""
        return f"quantgov archive models:/NAME/VERSION --store {self.url}   (it replaces what is damaged)"

    def _changed_manifest(self, name: str) -> TamperingError:
        return TamperingError(
            f"The archived {name[:26]}... has been changed.",
            why="The files that it lists may be others.",
            fix=self.repair(),
        )

    def _read_or_none(self, name: str, limit: int) -> bytes | None:
        """A file, or None where there is none, and an empty one where it cannot be read: it is written anew then."""
        try:
            return self._place.read(name, limit)
        except TamperingError:
            return b""

    def _is_whole_blob(self, entry: FileEntry) -> bool:
        """Whether an earlier kind of archive has the file already, and it is sound."""
        hasher = hashlib.sha256()
        try:
            parts = self._place.stream(blob_name(entry.sha256))
            if parts is None:
                return False
            for part in parts:
                hasher.update(part)
        except TamperingError:
            return False
        return hasher.hexdigest() == entry.sha256


def open_store(where: str | None) -> ArchiveStore:
    """The archive that a path or URL names; None for `QUANTGOV_ARCHIVE`.

    Raises:
        UsageError: None is named, or its scheme is not known.
        MissingExtraError: It is no folder, and fsspec is not installed.
    """
    given = where or os.environ.get("QUANTGOV_ARCHIVE")
    if not given:
        raise UsageError(
            "No archive is named.",
            why="The full-precision weights must lie where the registry cannot lose them.",
            fix="export QUANTGOV_ARCHIVE=/path/to/archive",
        )
    return ArchiveStore(_place(given))


def _place(given: str) -> Place:
    from mlflow_quantgov.evidence.measure.archive.remote import RemotePlace, scheme_of

    if "::" in given:
        raise UsageError(
            "An archive is one place, not a chain of them.",
            why="What is kept on the way (a cache, a zip file) is no archive.",
            fix="name the store itself, such as s3://bucket/archive",
        )
    if given.startswith("file:"):
        return LocalPlace(Path(unquote(urlsplit(given).path)))
    return RemotePlace(given) if scheme_of(given) else LocalPlace(Path(given))


def _check_it_reads(record: bytes, entry: FileEntry) -> None:
    """A list of pieces that a restore would refuse must not be called archived.

    Raises:
        ArtifactError: It is too long.
    """
    try:
        if len(record) > MAX_RECORD:
            raise ValueError("it is too long")
        read_file_record(record, entry.size)
    except ValueError as error:
        raise ArtifactError(
            f"{entry.path} cannot be archived: the list of its pieces could not be read back ({error}).",
            why="What cannot be restored is not archived.",
            fix="split it into shards, for example with save_pretrained(..., max_shard_size='5GB')",
        ) from error


def _coded(piece: Piece) -> bytes:
    coded = encode(piece.data, width=piece.width, lead=piece.lead)
    if decode(coded) != piece.data:
        raise AssertionError("a piece does not decode to what was coded")
    return coded


def _gives(coded: bytes, data: bytes) -> bool:
    try:
        return decode(coded) == data
    except CodingError:
        return False


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
