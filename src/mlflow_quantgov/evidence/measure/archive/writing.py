"""Put a parent's files into the archive."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.artifact.describe import size_words
from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.evidence.measure.archive.store import Kept, open_store
from mlflow_quantgov.evidence.measure.progress import ByteMeter, Progress
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates.archive import Archive, ArchivedFile


def archive(model: Path, manifest: Manifest, store: str | None = None, *, progress: Progress | None = None) -> Archive:
    """Archive the files of a model by digest, in pieces that versions share; one that was killed goes on where it stopped.

    Args:
        model: Folder or file.
        manifest: Of that folder or file.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.
        progress: Told what it will cost, and how far it is.

    Raises:
        UsageError: No archive is named, or its scheme is not known.
        ArtifactError: A file changed meanwhile, or the disk is full; what was archived before is untouched.
        UnreachableError: The store does not answer.
    """
    opened, kept = open_store(store), Kept()
    meter = ByteMeter(progress, manifest.total_size, "archived")
    free = opened.free_bytes()
    room = f" ({size_words(free)} free)" if free is not None else ""
    total = size_words(manifest.total_size)
    meter.announce(f"reads {len(manifest.files)} files, {total}, and stores at most as much at {opened.url}{room}")
    with opened.writing():
        for entry in manifest.files:
            opened.put(model if model.is_file() else model / entry.path, entry, kept, meter.advance)
        opened.put_manifest(manifest)
    return Archive.measured(
        provenance=provenance("zstandard"),
        store=opened.url,
        manifest_digest=manifest.digest,
        files=tuple(ArchivedFile(path=one.path, size=one.size, sha256=one.sha256) for one in manifest.files),
        stored_bytes=kept.stored_bytes,
        pieces=kept.pieces,
        new_pieces=kept.new_pieces,
        new_bytes=kept.new_bytes,
        repaired_pieces=kept.repaired,
    )
