"""The restore drill: bring the archived parent back, verify it, load it, and have it answer as it did."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.runtimes.registry import runtime_for
from mlflow_quantgov.errors import ArtifactError, MissingExtraError, QuantgovError, TamperingError
from mlflow_quantgov.evidence.measure.archive import ArchiveStore, DamagedArchiveError, open_store, restore
from mlflow_quantgov.evidence.measure.archive.records import Answer
from mlflow_quantgov.evidence.measure.archive.scratch import held_folder
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance
from mlflow_quantgov.evidence.predicates.archive import Drill

ANSWER_TOKENS = 16
SCRATCH = "quantgov-drill-"


def drill(
    digest: str,
    store: str | None,
    *,
    runtime: str | None = None,
    prompt: str,
    original: Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Drill:
    """Restore into a temporary folder and see whether the model lives, and answers as it did.

    Its answer is compared with the one that an earlier drill recorded in the archive. Where there is none, or another version
    of the runtime answers otherwise, the registry's own files are asked beside it. Where nobody can be asked, it fails.

    Args:
        digest: Manifest digest of the archived model.
        store: Folder or URL; None for `QUANTGOV_ARCHIVE`.
        runtime: Runtime to load it in, if it is here and loads such files; else another does, and a warning says so.
        prompt: What it has to answer, greedily.
        original: Folder or file of the model in the registry, to be asked the same; None where that is lost.
        cache: Folder for converted twins of the original; those of the restored files are made anew.
        progress: Told what it will cost, and how far it is.

    Returns:
        What happened; a file that did not come back is named in `problems`, not raised.

    Raises:
        UsageError: No archive is named, or it does not hold the model: then nothing was tried.
        MissingExtraError: A library is not installed: then nothing was tried either.
        ArtifactError: There is no room to restore into, or no runtime here loads such a model, which says nothing about the
            archive.
        UnreachableError: The store does not answer.
    """
    opened = open_store(store)
    _check_it_can_be_tried(opened, digest)
    notes: list[str] = []
    if original is not None:
        runtime = _choose(original, runtime, notes)  # before gigabytes are restored
    question = _Question(prompt, runtime, original, cache)
    result: dict[str, Any] = {"verified_files": 0, "loaded": False, "answered": False}
    restored = digest
    with ExitStack() as held:
        scratch = _scratch(held)
        folder = scratch / "restored"
        try:
            result["verified_files"] = len(restore(digest, store, folder, progress=progress).files)
            restored = build_manifest(folder).digest
        except DamagedArchiveError as error:
            result["problems"] = tuple(one[:1000] for one in error.problems[:100])
        except TamperingError as error:
            result["problems"] = (error.what[:1000],)
        else:
            if progress:
                progress("loads and answers", 1.0)
            result |= _revive(folder, scratch / "twins", question, opened, digest)
    result["warnings"] = (*notes, *result.get("warnings", ()))
    return Drill.measured(
        provenance=provenance("zstandard", *RUNTIME_LIBRARIES),
        store=opened.url,
        manifest_digest=restored,
        prompt_sha256=_sha256(prompt),
        **result,
    )


def _choose(original: Path, preferred: str | None, notes: list[str]) -> str:
    """Name of a runtime: the preferred one, or another where that serves on other machines or from no files at all.

    Raises:
        ArtifactError: None here loads it.
    """
    try:
        return runtime_for(original, preferred=preferred).name
    except QuantgovError as error:
        if preferred is None:
            raise
        found = runtime_for(original).name
        notes.append(f"It was loaded in {found}, not in the target's {preferred}: {error.what}"[:1000])
        return found


def _scratch(held: ExitStack) -> Path:
    """A folder for what is restored; those of drills that were killed are removed first."""
    parent = Path(tempfile.gettempdir())
    try:
        return held.enter_context(held_folder(parent, SCRATCH))
    except OSError as error:
        raise _no_room(parent, error) from error


@dataclass(frozen=True)
class _Question:
    """What the restored model is asked, and with whom it is compared."""

    prompt: str
    runtime: str | None
    original: Path | None
    cache: Path | None

    def ask(self, model: Path, cache: Path | None) -> tuple[str, Answer]:
        """A model's answer, and what is recorded of it."""
        adapter = runtime_for(model, preferred=self.runtime)
        with adapter.open(model, cache=cache) as runtime:
            text = runtime.generate([self.prompt], max_tokens=ANSWER_TOKENS)[0]
            version = runtime.facts().version
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return text, Answer(_sha256(self.prompt), _sha256(text), adapter.name, version, now)


def _check_it_can_be_tried(store: ArchiveStore, digest: str) -> None:
    """A drill that cannot run says nothing about the archive, and must not be recorded as one that failed."""
    try:
        store.manifest(digest)
    except TamperingError:
        return  # that is a finding


def _revive(folder: Path, twins: Path, question: _Question, store: ArchiveStore, digest: str) -> dict[str, Any]:
    """Load the restored files and compare what they answer; what is wrong with the model itself is a problem."""
    files = list(folder.iterdir())
    model = files[0] if len(files) == 1 and files[0].suffix == ".gguf" else folder
    try:
        twins.mkdir()
        text, answer = question.ask(model, twins)
    except MissingExtraError:
        raise
    except QuantgovError as error:
        return _failed(f"the restored model does not load: {error.what}")
    except OSError as error:  # the files themselves were read when they were verified
        raise _no_room(twins.parent, error) from error
    result = {"loaded": True, "runtime": answer.runtime, "answer_sha256": answer.answer_sha256}
    if not text.strip():
        return result | _failed("the restored model answers nothing")
    return result | _compared(answer, question, store, digest)


def _compared(answer: Answer, question: _Question, store: ArchiveStore, digest: str) -> dict[str, Any]:
    """The answer beside the recorded one, or else beside that of the registry's own files."""
    recorded = store.answers(digest)
    before = next((one for one in recorded if _same_question(one, answer)), None)
    if before is not None and before.answer_sha256 == answer.answer_sha256:
        return {"answered": True, "reproduced": "recorded"}
    then = f"the answer recorded on {before.recorded_at[:10]} ({before.runtime} {before.version})" if before else ""
    own, why = _own_answer(question)
    if own is None:
        if before is not None:
            return _failed(f"the restored model answers otherwise than {then}; {why}")
        return _failed(f"there is nothing to compare its answer with: no drill has recorded one, and {why}")
    if own.answer_sha256 != answer.answer_sha256:
        return _failed("the restored model answers otherwise than the registry's own files")
    changed = f"{answer.runtime} {answer.version} no longer gives {then}, from the registry's own files either"
    warnings = [changed] if before else []
    try:
        store.put_answers(digest, [one for one in recorded if not _same_question(one, answer)] + [answer])
    except QuantgovError as error:  # an archive that this machine may only read is no worse for it
        warnings.append(f"The answer was not recorded, so the next drill asks the registry again: {error.what}"[:1000])
    return {"answered": True, "reproduced": "original", "warnings": tuple(warnings)}


def _own_answer(question: _Question) -> tuple[Answer | None, str]:
    """What the registry's own files answer, or why nobody can tell: then the archive is all there is."""
    if question.original is None:
        return None, "the registry's own files are not at hand"
    try:
        return question.ask(question.original, question.cache)[1], ""
    except QuantgovError as error:
        return None, f"the registry's own files do not load ({error.what.rstrip('.')})"
    except OSError as error:
        raise _no_room(question.cache or Path(tempfile.gettempdir()), error) from error


def _failed(problem: str) -> dict[str, Any]:
    return {"problems": (problem[:1000],)}


def _no_room(folder: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"The drill cannot write into {folder}: {error.strerror or error}.",
        why="It says nothing about the archive. Loading may take as much room again as the model itself.",
        fix=f"df -h {folder}; then TMPDIR=/big/disk quantgov drill models:/NAME/VERSION",
    )


def _same_question(one: Answer, other: Answer) -> bool:
    return (one.prompt_sha256, one.runtime) == (other.prompt_sha256, other.runtime)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
