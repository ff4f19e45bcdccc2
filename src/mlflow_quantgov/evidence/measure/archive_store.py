"""A content-addressed archive in a folder: a file is stored once, under its sha256, whatever model it belongs to."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlparse

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest
from mlflow_quantgov.artifact.weights import CHUNK
from mlflow_quantgov.errors import ArtifactError, TamperingError, UsageError
from mlflow_quantgov.evidence.measure.documents import file_digest


class ArchiveStore:
    """`blobs/ab/<sha256>` and `manifests/<digest>.json` below one folder; files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        self.folder = folder

    @property
    def url(self) -> str:
        """Where the archive lies."""
        return self.folder.resolve().as_uri()

    def _prepare(self, folder: Path) -> None:
        """Create a folder of the archive.

        Raises:
            ArtifactError: That is not possible there.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"The archive {self.folder} cannot be written: {error.strerror}.",
                why="Nothing was archived.",
                fix=f"ls -ld {self.folder}; export QUANTGOV_ARCHIVE=/path/to/archive",
            ) from error

    def put(self, source: Path, entry: FileEntry) -> bool:
        """Store one file; False where the archive had it already, whole. A damaged one is replaced.

        Raises:
            ArtifactError: The file changed meanwhile, or the disk is full.
        """
        blob = self._blob(entry.sha256)
        if blob.is_file() and blob.stat().st_size == entry.size and file_digest(blob) == f"sha256:{entry.sha256}":
            return False
        self._room_for(entry)
        self._prepare(blob.parent)
        descriptor, scratch = tempfile.mkstemp(dir=blob.parent, prefix=".put-")
        try:
            with os.fdopen(descriptor, "wb") as writer:
                found = _copy(source, writer)
                writer.flush()
                os.fsync(writer.fileno())
            if found != entry.sha256:
                raise ArtifactError(f"{entry.path} changed while it was archived.", fix="archive it again")
            Path(scratch).replace(blob)
        except OSError as error:
            raise ArtifactError(
                f"{entry.path} could not be archived: {error.strerror}.",
                why="What was archived before is untouched.",
                fix=f"df -h {self.folder}",
            ) from error
        finally:
            Path(scratch).unlink(missing_ok=True)
        return True

    def put_manifest(self, manifest: Manifest) -> None:
        """Store a manifest after its files, so that whoever finds it finds them."""
        path = self._manifest(manifest.digest)
        self._prepare(path.parent)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".put-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as writer:
            writer.write(manifest.to_json())
            writer.flush()
            os.fsync(writer.fileno())
        Path(scratch).replace(path)

    def manifest(self, digest: str) -> Manifest:
        """A stored manifest.

        Raises:
            UsageError: It was never archived here.
            TamperingError: It is not the one that its name says.
        """
        path = self._manifest(digest)
        if not path.is_file():
            raise UsageError(
                f"The archive {self.url} does not hold {digest[:19]}.",
                why="What was not archived cannot be brought back.",
                fix="quantgov archive models:/NAME/VERSION",
            )
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
        if manifest.digest != digest:
            raise TamperingError(
                f"The archived manifest {digest[:19]} has been changed.",
                why="The files that it lists may be others.",
                fix="quantgov archive models:/NAME/VERSION",
            )
        return manifest

    def get(self, entry: FileEntry, destination: Path) -> None:
        """Bring one file back, verified.

        Raises:
            TamperingError: It is missing or its bytes have changed; the file is named.
        """
        blob = self._blob(entry.sha256)
        if not blob.is_file():
            raise self._damaged(entry, "is missing from the archive")
        destination.parent.mkdir(parents=True, exist_ok=True)
        with destination.open("wb") as writer:
            found = _copy(blob, writer)
        if found != entry.sha256:
            raise self._damaged(entry, "has changed in the archive")

    def _damaged(self, entry: FileEntry, how: str) -> TamperingError:
        return TamperingError(
            f"{entry.path} {how}.",
            why="A rollback to these bytes would fail.",
            fix=f"quantgov archive models:/NAME/VERSION --store {self.folder}   (it replaces what is damaged)",
        )

    def _blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256[:2] / sha256

    def _manifest(self, digest: str) -> Path:
        return self.folder / "manifests" / f"{digest.removeprefix('sha256:')}.json"

    def _room_for(self, entry: FileEntry) -> None:
        self._prepare(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < entry.size:
            raise ArtifactError(
                f"{entry.path} needs {entry.size:,} bytes, the archive has {free:,} left.",
                why="What was archived before is untouched.",
                fix=f"df -h {self.folder}",
            )


def open_store(where: str | None) -> ArchiveStore:
    """The archive that a path or URL names; None for `QUANTGOV_ARCHIVE`.

    Raises:
        UsageError: None is named, or its scheme is not supported.
    """
    given = where or os.environ.get("QUANTGOV_ARCHIVE")
    if not given:
        raise UsageError(
            "No archive is named.",
            why="The full-precision weights must lie where the registry cannot lose them.",
            fix="export QUANTGOV_ARCHIVE=/path/to/archive",
        )
    parsed = urlparse(given)
    if parsed.scheme in {"", "file"}:
        return ArchiveStore(Path(parsed.path if parsed.scheme else given))
    raise UsageError(
        f"Archives at {parsed.scheme}:// are not supported yet.",
        why="Only folders are.",
        fix="export QUANTGOV_ARCHIVE=/path/to/archive",
    )


def _copy(source: Path, writer: object) -> str:
    hasher = hashlib.sha256()
    with source.open("rb") as reader:
        while chunk := reader.read(CHUNK):
            hasher.update(chunk)
            writer.write(chunk)  # type: ignore[attr-defined]
    return hasher.hexdigest()
