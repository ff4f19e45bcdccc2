"""Copies of statements beside the model, for people to read; the gate keeps the bytes that count."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow_quantgov.evidence.signing import Attached
from mlflow_quantgov.evidence.statement import Statement

EVIDENCE_FOLDER = "quantgov/evidence"


def copy_name(attached: Attached) -> str:
    """File name of a copy: kind and the first 16 hex digits of the digest, and those of the envelope of a signed one."""
    statement, envelope = attached.statement, attached.envelope
    stem = f"{statement.kind}-{_start(statement.digest)}"
    return f"{stem}.json" if envelope is None else f"{stem}.{_start(envelope.digest)}.dsse.json"


def write_copy(root: Path, statement: Statement) -> Path:
    """Write a statement into a saved model's folder, and return the file."""
    folder = root / EVIDENCE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / copy_name(Attached(statement))
    path.write_bytes(statement.to_bytes())
    return path


def upload_copy(model_id: str, attached: Attached) -> None:
    """Put a copy beside a LoggedModel (`m-...`) on the tracking server."""
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / copy_name(attached)
        path.write_bytes(attached.to_bytes())
        mlflow.MlflowClient().log_model_artifact(model_id, str(path), EVIDENCE_FOLDER)


def _start(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]
