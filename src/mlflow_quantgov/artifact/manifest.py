"""Every file's path, size and sha256; one digest of the whole, and one of the weights alone."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.files import list_files, parse_json
from mlflow_quantgov.artifact.graph_files import GRAPH_SUFFIXES, companions
from mlflow_quantgov.artifact.weights import (
    CHUNK,
    WeightPart,
    json_digest,
    pool,
    tensor_parts,
    weight_files,
    weights_digest,
)
from mlflow_quantgov.errors import ArtifactError

SCHEMA = "quantgov/manifest/v1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file."""

    path: str
    """Relative to the model's folder, with forward slashes."""
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a model folder holds."""

    files: tuple[FileEntry, ...]
    """Sorted by path."""
    weights_digest: str
    """`sha256:...` over the tensors alone, whatever file they lie in."""
    weights_of: str = "tensors"
    """`tensors`; `files` where no tensor can be read, so that the weight files' own digests stand in; `tensors and
    files` where both kinds lie in the folder."""

    @property
    def digest(self) -> str:
        """`sha256:...` over the list of files, sorted by path, as canonical JSON."""
        return json_digest([asdict(file) for file in sorted(self.files, key=lambda file: file.path)])

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """Readable JSON, digests included."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "digest": self.digest,
                "weights_digest": self.weights_digest,
                "weights_of": self.weights_of,
                "files": [asdict(file) for file in self.files],
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            ArtifactError: It is no manifest, names a path outside its folder, or its digest is not that of its list.
        """
        try:
            data = parse_json(text.encode())
            files = tuple(FileEntry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in data["files"])
            manifest = cls(files, str(data["weights_digest"]), str(data.get("weights_of", "tensors")))
            stated, schema = data["digest"], data.get("schema", SCHEMA)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise _bad(f"it cannot be read ({type(error).__name__})") from error
        if schema != SCHEMA:
            raise _bad(f"its schema is {str(schema)[:100]!r}, not {SCHEMA!r}")
        for file in files:
            if not _is_inside(file.path) or file.size < 0 or not _SHA256.fullmatch(file.sha256):
                raise _bad(f"its entry {file.path[:100]!r} names no file inside the model's folder, or no sha256")
        if len({file.path for file in files}) != len(files):
            raise _bad("a path stands twice in it")
        if not _DIGEST.fullmatch(manifest.weights_digest):
            raise _bad("its weights digest is no sha256")
        if stated != manifest.digest:
            raise _bad("its digest is not that of its own list")
        return manifest

    def verify(self, folder: str | Path) -> list[str]:
        """Where a folder (or the one file itself) differs; empty where every byte is right.

        Args:
            folder: The model's folder, or the file itself where the manifest is of one file.

        Returns:
            One sentence for each file that is missing, has changed or was added.
        """
        try:
            found = dict(list_files(Path(folder)))
        except ArtifactError as error:
            return [error.what]
        missing = [f"{file.path} is missing" for file in self.files if file.path not in found]
        present = [file for file in self.files if file.path in found]
        with pool() as workers:
            same = list(workers.map(lambda file: _is_same(file, found[file.path]), present))
        changed = [f"{file.path} has changed" for file, right in zip(present, same, strict=True) if not right]
        named = {file.path for file in self.files}
        return missing + changed + [f"{path} was added" for path in sorted(found.keys() - named)]


def build_manifest(path: str | Path) -> Manifest:
    """Hash the files of a model folder, or one model file, in parallel by file.

    Raises:
        ArtifactError: Nothing there, a link that leads out, or tensors that cannot be read.
    """
    entries = _entries(Path(path))
    with pool() as workers:
        digests = list(workers.map(lambda entry: _sha256(entry[1]), entries))
    files = [FileEntry(relative, size, digest) for (relative, _), (digest, size) in zip(entries, digests, strict=True)]
    return _finish(files, dict(entries))


def copy_with_manifest(source: str | Path, destination: str | Path) -> Manifest:
    """Copy a model folder or file, hashing while copying; nothing is left behind on an error.

    Args:
        source: Folder or file.
        destination: Folder to create; a single file is put into it under its own name.

    Raises:
        ArtifactError: Nothing there, a link leads out of the folder, the destination exists, or the disk is full.
    """
    target = Path(destination)
    entries = _entries(Path(source))
    if target.exists() or target.is_symlink():
        raise ArtifactError(f"{target} exists.", why="Nothing was copied.", fix=f"rm -r {target}")
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
        folder = scratch
        with pool() as workers:
            files = list(workers.map(lambda entry: _copy(entry[0], entry[1], folder), entries))
        manifest = _finish(files, {file.path: scratch / file.path for file in files})
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise ArtifactError(
                f"{source} could not be copied to {target}: {error.strerror or error}.",
                why="Nothing was copied.",
                fix=f"df -h {target.parent}; ls -l {source}",
            ) from error
        raise
    return manifest


def refuse_part(source: Path) -> None:
    """Refuse a graph that is named without the files which hold its weights.

    Raises:
        ArtifactError: The one file keeps weights beside it, or cannot be read.
    """
    if source.is_file() and source.suffix in GRAPH_SUFFIXES and (beside := companions(source)):
        raise ArtifactError(
            f"{source.name} keeps its weights in {beside[0].name}, beside it.",
            why="The digest of the one file would say nothing about its weights.",
            fix=f"name the folder instead: {source.parent}",
        )


def _entries(source: Path) -> list[tuple[str, Path]]:
    entries = list_files(source)
    refuse_part(source)
    if not entries:
        raise ArtifactError(f"{source} holds no files.", why="There is no model to read.", fix=f"ls {source}")
    return entries


def _finish(files: list[FileEntry], paths: dict[str, Path]) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    tensors = tensor_parts({file.path: paths[file.path] for file in ordered})
    digests = {file.path: file.sha256 for file in ordered}
    others = [WeightPart(name, digests[name]) for name in weight_files(paths, alone=not tensors)]
    kind = "tensors" if not others else "tensors and files" if tensors else "files"
    return Manifest(ordered, weights_digest(tensors + others), kind)


def _copy(relative: str, source: Path, folder: Path) -> FileEntry:
    target = folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            hasher.update(chunk)
            writer.write(chunk)
            size += len(chunk)
    return FileEntry(relative, size, hasher.hexdigest())


def _is_same(entry: FileEntry, path: Path) -> bool:
    try:
        return path.stat().st_size == entry.size and _sha256(path) == (entry.sha256, entry.size)
    except OSError:
        return False


def _sha256(path: Path) -> tuple[str, int]:
    """Hex digest and number of the bytes that were read."""
    hasher, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return hasher.hexdigest(), size


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path


def _bad(problem: str) -> ArtifactError:
    return ArtifactError(
        f"The manifest is wrong: {problem}.",
        why="Without it nobody can tell whether the files are those that were logged.",
        fix="log the model again with mlflow_quantgov.log_model",
    )
