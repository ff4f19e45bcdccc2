"""That the parent's files are kept by digest, and that they came back and loaded."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mlflow_quantgov.evidence.predicates.base import Digest, Predicate, Record, ShortText


class ArchivedFile(Record):
    """One file, as the manifest names it."""

    path: ShortText
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Archive(Predicate):
    """The parent's files lie in an archive. Subject: the parent's weights."""

    KIND: ClassVar[str] = "archive"

    store: ShortText
    """URL of the archive, without credentials."""
    manifest_digest: Digest
    files: tuple[ArchivedFile, ...] = Field(min_length=1, max_length=100_000)
    stored_bytes: int = Field(ge=0)
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Number of files and bytes that the archive holds for this model."""
        return {"files": len(self.files), "size_bytes": sum(file.size for file in self.files)}


class Drill(Predicate):
    """The archived files were restored, verified, loaded, and answered. Subject: the parent's weights."""

    KIND: ClassVar[str] = "drill"

    store: ShortText
    manifest_digest: Digest
    """Digest of what was restored, computed anew from the restored files."""
    verified_files: int = Field(ge=0)
    problems: tuple[ShortText, ...] = ()
    loaded: bool
    runtime: ShortText | None = None
    answered: bool
    """Whether the restored model gave the recorded answer (or any answer, where none was recorded before)."""
    answer_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """`pass` only if every file came back and the model loaded and answered."""
        good = self.verified_files > 0 and not self.problems and self.loaded and self.answered
        return {"outcome": "pass" if good else "fail", "verified_files": self.verified_files}
