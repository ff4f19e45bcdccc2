"""What may be added beside a registered model: evidence, and what people look at; nothing that a loader would read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.signing import MAX_ENVELOPE_BYTES, read_attached
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.flavor.layout import OWN_FOLDER
from mlflow_quantgov.gate.facts.contents import weights_below

MOST_FILES = 1000
"""In one folder: an inspection gives up on a version with too many files, and nobody may bring it there."""
MOST_BYTES = 8_000_000
"""In one folder of reports or plots: a model of another kind may not grow beyond what anybody takes for one."""
_SHOWN_FOLDERS = (f"{OWN_FOLDER}/reports", f"{OWN_FOLDER}/plots")
_SHOWN_FILES = (f"{OWN_FOLDER}/report.html",)
_SHOWN_SUFFIXES = {".html", ".md", ".png", ".svg", ".csv", ".json", ".txt", ".pdf"}


def may_be_added(inner: tuple[str, ...]) -> bool:
    """Whether a path inside a version's folder is one where something may be added, if it is of the right kind."""
    path = PurePosixPath(*inner) if inner else PurePosixPath()
    if path.parent.as_posix() == EVIDENCE_FOLDER:
        return path.suffix == ".json"
    shown = path.as_posix() in _SHOWN_FILES or path.parent.as_posix() in _SHOWN_FOLDERS
    return shown and path.suffix in _SHOWN_SUFFIXES


def most_bytes(inner: tuple[str, ...]) -> int:
    """The size at which reading an addition is given up."""
    return MAX_ENVELOPE_BYTES if is_evidence(inner) else MOST_BYTES


def is_evidence(inner: tuple[str, ...]) -> bool:
    """Whether a path is that of a copy of a statement."""
    return "/".join(inner[:-1]) == EVIDENCE_FOLDER


def problem_of(inner: tuple[str, ...], path: Path) -> str | None:
    """Why a file may not be added, or None.

    A copy of a statement that is not what its name says refuses every promotion of its version, and nobody could take
    it away again: so it does not come in.

    Args:
        inner: Path inside the version's folder.
        path: The file, under the same name, on this machine.
    """
    if path.stat().st_size > most_bytes(inner):
        return f"it is larger than {most_bytes(inner):,} bytes"
    if is_evidence(inner):
        try:
            attached = read_attached(path.read_bytes(), where=inner[-1])
        except QuantgovError as error:
            return f"it is no statement: {error.what}"
        return None if copy_name(attached) == inner[-1] else f"the statement in it belongs into {copy_name(attached)}"
    try:
        return "it holds model weights" if weights_below(path) else None
    except QuantgovError as error:
        return error.what
