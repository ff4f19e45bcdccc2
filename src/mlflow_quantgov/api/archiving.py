"""The archive of a version's full-precision parent: put there, proved to come back, brought back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.download import cache_folder, local_model
from mlflow_quantgov.versions import (
    attach_content,
    attach_to,
    declared_target,
    full_precision,
    record_of,
    signer_of,
)


def archive(
    uri: str,
    store: str | None = None,
    *,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Archive the full-precision parent of a version (or the version itself, if it is one) and attach the proof.

    Args:
        uri: A quantized version or a parent.
        store: Folder or URL of the archive (`s3://bucket/archive`, any that fsspec reaches); None for `QUANTGOV_ARCHIVE`.
        progress: Called with a message and the fraction done; what it will cost is said first.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.
    """
    signer = signer_of(key)
    from mlflow_quantgov.evidence.measure import archive as measure

    parent = full_precision(uri)
    manifest = parent.manifest()
    with _naming(uri):
        found = measure.archive(parent.artifact, manifest, store, progress=progress)
    return attach_content(attach_to(uri, parent), manifest.weights_digest, found, signer)


def drill(
    uri: str,
    store: str | None = None,
    *,
    prompt: str = "The capital of France is",
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Restore the archived parent, verify every digest, load it and have it answer as before; attach what happened.

    Args:
        uri: A quantized version or a parent.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
        prompt: What the restored model has to answer: as an earlier drill recorded, or else as the registry's own files do.
        progress: Called with a message and the fraction done; what it will cost is said first.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.
    """
    signer = signer_of(key)
    from mlflow_quantgov.evidence.measure import drill as measure

    parent = full_precision(uri)
    manifest = parent.manifest()
    target = declared_target(parent)
    with _naming(uri):
        found = measure.drill(
            manifest.digest,
            store,
            runtime=target.runtime if target else None,
            prompt=prompt,
            original=parent.artifact,
            cache=cache_folder(),
            progress=progress,
        )
    return attach_content(attach_to(uri, parent), manifest.weights_digest, found, signer)


def restore(uri: str, folder: Path, store: str | None = None, *, progress: Progress | None = None) -> Manifest:
    """Bring the archived parent of a version back into a new folder, every digest verified.

    Args:
        uri: A quantized version or a parent.
        folder: Folder to create.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
        progress: Called with a message and the fraction done; what it will cost is said first.
    """
    from mlflow_quantgov.evidence.measure import archive as measure

    record = record_of(local_model(uri))
    digest = record.parent["manifest"] if record and record.parent else local_model(uri).manifest().digest
    with _naming(uri):
        return measure.restore(digest, store, folder, progress=progress)


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """The archive knows digests alone: a remedy that names any version names this one."""
    try:
        yield
    except QuantgovError as error:
        error.fix = error.fix.replace("models:/NAME/VERSION", uri)
        raise
