"""Put a parent's files into the archive, and bring them back."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.errors import ArtifactError, TamperingError
from mlflow_quantgov.evidence.measure.archive_store import open_store
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates.archive import Archive, ArchivedFile


def archive(model: Path, manifest: Manifest, store: str | None = None) -> Archive:
    """Archive the files of a model by digest.

    Args:
        model: Folder or file.
        manifest: Of that folder or file.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.

    Raises:
        ArtifactError: A file changed meanwhile, or the disk is full; what was archived before is untouched.
    """
    opened, stored = open_store(store), 0
    for entry in manifest.files:
        source = model if model.is_file() else model / entry.path
        if opened.put(source, entry):
            stored += entry.size
    opened.put_manifest(manifest)
    return Archive.measured(
        provenance=provenance(),
        store=opened.url,
        manifest_digest=manifest.digest,
        files=tuple(ArchivedFile(path=one.path, size=one.size, sha256=one.sha256) for one in manifest.files),
        stored_bytes=stored,
    )


def restore(digest: str, store: str | None, folder: Path) -> Manifest:
    """Bring archived files back into a new folder, every digest verified; on an error the folder is not created.

    Args:
        digest: Manifest digest of the archived model.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.
        folder: Folder to create.

    Raises:
        ArtifactError: The folder exists.
        TamperingError: A file is missing or has changed; it is named.
    """
    if folder.exists():
        raise ArtifactError(f"{folder} exists.", why="Nothing was restored.", fix=f"rm -r {folder}")
    opened = open_store(store)
    manifest = opened.manifest(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".restore-", dir=folder.parent))
    try:
        for entry in manifest.files:
            opened.get(entry, scratch / entry.path)
        problems = manifest.verify(scratch)
        if problems:
            raise TamperingError(f"{problems[0]}.", why="The restored files are not those that were archived.")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest
