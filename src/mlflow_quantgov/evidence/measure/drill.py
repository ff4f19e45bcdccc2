"""The restore drill: bring the archived parent back, verify it, load it, and have it answer."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import MissingExtraError, QuantgovError, TamperingError
from mlflow_quantgov.evidence.measure.archive import restore
from mlflow_quantgov.evidence.measure.archive_store import ArchiveStore, open_store
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance
from mlflow_quantgov.evidence.predicates.archive import Drill

ANSWER_TOKENS = 16


def drill(
    digest: str,
    store: str | None,
    *,
    runtime: str | None = None,
    prompt: str,
    expected: str | None = None,
    cache: Path | None = None,
) -> Drill:
    """Restore into a temporary folder and see whether the model lives.

    Args:
        digest: Manifest digest of the archived model.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.
        runtime: Runtime to load it in, where there is a choice.
        prompt: What it has to answer, greedily.
        expected: sha256 (hex) of the answer that an earlier drill recorded, or None.
        cache: Folder for converted twins.

    Returns:
        What happened; a file that did not come back is named in `problems`, not raised.

    Raises:
        UsageError: No archive is named, or it does not hold the model: then nothing was tried.
        MissingExtraError: The runtime is not installed: then nothing was tried either.
    """
    opened = open_store(store)
    _check_it_can_be_tried(opened, digest)
    result: dict[str, Any] = {"verified_files": 0, "problems": (), "loaded": False, "answered": False}
    with tempfile.TemporaryDirectory(prefix="quantgov-drill-") as scratch:
        folder = Path(scratch) / "restored"
        try:
            manifest = restore(digest, store, folder)
            result["verified_files"] = len(manifest.files)
            result |= _revive(folder, runtime, prompt, expected, cache)
            digest = build_manifest(folder).digest
        except MissingExtraError:
            raise
        except QuantgovError as error:
            result["problems"] = (error.what[:1000],)
    return Drill.measured(
        provenance=provenance(*RUNTIME_LIBRARIES),
        store=opened.url,
        manifest_digest=digest,
        **result,
    )


def _check_it_can_be_tried(store: ArchiveStore, digest: str) -> None:
    """A drill that cannot run says nothing about the archive, and must not be recorded as one that failed."""
    try:
        store.manifest(digest)
    except TamperingError:
        return  # that is a finding


def _revive(
    folder: Path, preferred: str | None, prompt: str, expected: str | None, cache: Path | None
) -> dict[str, Any]:
    files = list(folder.iterdir())
    model = files[0] if len(files) == 1 and files[0].suffix == ".gguf" else folder
    adapter = runtime_for(model, preferred=preferred)
    with adapter.open(model, cache=cache) as runtime:
        answer = runtime.generate([prompt], max_tokens=ANSWER_TOKENS)[0]
    sha256 = hashlib.sha256(answer.encode()).hexdigest()
    return {
        "loaded": True,
        "runtime": adapter.name,
        "answered": bool(answer.strip()) and expected in {None, sha256},
        "answer_sha256": sha256,
    }
