"""That the parent's files are kept by digest, and that they came back and loaded."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

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
    """Bytes that the archive grew by; pieces that it held already cost none."""
    pieces: int | None = Field(None, ge=0)
    """Pieces into which the files were cut; None where whole files were stored, as before pieces were."""
    new_pieces: int = Field(0, ge=0)
    """Those that the archive did not hold, or held damaged."""
    new_bytes: int = Field(0, ge=0)
    """Bytes of the new pieces before they were coded."""
    repaired_pieces: int = Field(0, ge=0)
    """Damaged ones that were replaced."""
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """Files and bytes of this model, what they cost now, and what was saved: bytes that lay there already, and by coding."""
        size = sum(file.size for file in self.files)
        summary = {"files": len(self.files), "size_bytes": size}
        if self.pieces is None:
            return summary
        return summary | {
            "pieces": self.pieces,
            "new_pieces": self.new_pieces,
            "repaired_pieces": self.repaired_pieces,
            "stored_bytes": self.stored_bytes,
            "saved_by_deduplication": size - self.new_bytes,
            "saved_by_compression": self.new_bytes - self.stored_bytes,
        }


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
    """Whether the restored model gave the answer with which it was compared (any answer, where `prompt_sha256` is None)."""
    answer_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    prompt_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """What it was asked; None in drills of the time before answers were compared."""
    reproduced: Literal["recorded", "original"] | None = None
    """Whose answer the restored model's equals: an earlier drill's, or that of the registry's own files, asked beside it."""
    warnings: tuple[ShortText, ...] = ()
    summary: dict[str, Any]

    def recompute(self) -> dict[str, Any]:
        """`pass` only if every file came back, the model loaded and answered, and its answer was compared with another."""
        good = self.verified_files > 0 and not self.problems and self.loaded and self.answered
        if self.prompt_sha256 is not None:
            good = good and self.reproduced is not None and self.answer_sha256 is not None
        summary = {"outcome": "pass" if good else "fail", "verified_files": self.verified_files}
        return summary | ({"reproduced": self.reproduced} if self.reproduced else {})
