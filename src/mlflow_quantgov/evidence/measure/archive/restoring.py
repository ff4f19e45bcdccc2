"""Bring a parent's files back from the archive."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow_quantgov.artifact.describe import size_words
from mlflow_quantgov.artifact.manifest import Manifest
from mlflow_quantgov.errors import ArtifactError, TamperingError, nearest_folder
from mlflow_quantgov.evidence.measure.archive.scratch import held_folder
from mlflow_quantgov.evidence.measure.archive.store import ArchiveStore, open_store
from mlflow_quantgov.evidence.measure.progress import ByteMeter, Progress

SCRATCH = ".quantgov-restore-"
"""How the folder is named that is being filled, beside the one that it becomes."""


class DamagedArchiveError(TamperingError):
    """Files that did not come back, each with what is wrong."""

    def __init__(self, problems: list[str], fix: str) -> None:
        """Name the first in the message, and keep all."""
        more = f" (and {len(problems) - 1} more file{'s' if len(problems) > 2 else ''})" if len(problems) > 1 else ""
        super().__init__(
            f"{problems[0].rstrip('.')}{more}.",
            why="A rollback to these bytes would fail; nothing was restored.",
            fix=fix,
        )
        self.problems = tuple(problems)


def restore(digest: str, store: str | None, folder: Path, *, progress: Progress | None = None) -> Manifest:
    """Bring archived files back into a new folder, every digest verified; on an error the folder is not created.

    Args:
        digest: Manifest digest of the archived model.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.
        folder: Folder to create.
        progress: Told what it will cost, and how far it is.

    Raises:
        UsageError: No archive is named, or it does not hold the model.
        ArtifactError: The folder exists, cannot be written, or has no room.
        DamagedArchiveError: Files are missing or have changed; each is named.
        UnreachableError: The store does not answer.
    """
    if folder.exists() or folder.is_symlink():
        raise ArtifactError(f"{folder} exists.", why="Nothing was restored.", fix=f"rm -r {folder}")
    opened = open_store(store)
    manifest = opened.manifest(digest)
    meter = ByteMeter(progress, manifest.total_size, "restored")
    try:
        room = shutil.disk_usage(folder.parent if folder.parent.is_dir() else nearest_folder(folder)).free
        need = f"{len(manifest.files)} files, {size_words(manifest.total_size)}"
        meter.announce(f"reads {need} from {opened.url} into {folder} ({size_words(room)} free)")
        if room < manifest.total_size:
            raise _unwritable(folder, f"{need} do not fit into {size_words(room)}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held_folder(folder.parent, SCRATCH) as scratch:
            _fill(scratch, opened, manifest, meter)
            scratch.chmod(0o755)
            scratch.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    return manifest


def _fill(scratch: Path, opened: ArchiveStore, manifest: Manifest, meter: ByteMeter) -> None:
    """Write every file; what is damaged is gathered, so that one repair mends all."""
    problems = []
    for entry in manifest.files:
        try:
            opened.get(entry, scratch / entry.path, meter.advance)
        except TamperingError as error:
            problems.append(error.what)
    # Again as a whole: the lists of pieces lie in the archive too, and nobody else vouches for them.
    problems = problems or [f"{problem} in the archive" for problem in manifest.verify(scratch)]
    if problems:
        raise DamagedArchiveError(problems, opened.repair())


def _unwritable(folder: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"Nothing can be restored into {folder}: {problem}.",
        why="The archive is as it was.",
        fix=f"df -h {nearest_folder(folder)}; ls -ld {nearest_folder(folder)}; or name another folder",
    )
