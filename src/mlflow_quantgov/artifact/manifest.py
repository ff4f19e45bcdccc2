"""Every file's path, size and sha256; one digest of the whole, and one of the weights alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.tensors import Tensor, open_safetensors, read_gguf
from mlflow_quantgov.errors import ArtifactError

CHUNK = 4 * 1024 * 1024
MAX_FILES = 100_000
WEIGHT_SUFFIXES = {".safetensors", ".gguf", ".onnx", ".bin", ".pt", ".pth", ".data"}


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
    """`tensors`, or `files` where no reader knows the container: then the weight files' digests stand in."""

    @property
    def digest(self) -> str:
        """`sha256:...` over the sorted list of files."""
        return _digest([asdict(file) for file in self.files])

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """Readable JSON, digests included."""
        return json.dumps(
            {
                "schema": "quantgov/manifest/v1",
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
            data = json.loads(text)
            files = tuple(FileEntry(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in data["files"])
            manifest = cls(files, str(data["weights_digest"]), str(data.get("weights_of", "tensors")))
            stated = data["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise _bad(f"it cannot be read ({type(error).__name__})") from error
        for file in files:
            if not _is_inside(file.path):
                raise _bad(f"it names {file.path[:100]!r}, outside the model's folder")
        if stated != manifest.digest:
            raise _bad("its digest is not that of its own list")
        return manifest

    def verify(self, folder: Path) -> list[str]:
        """Where a folder (or the one file itself) differs; empty where every byte is right."""
        problems = []
        found = {relative: path for relative, path in _walk(folder)}
        for file in self.files:
            path = found.pop(file.path, None)
            if path is None:
                problems.append(f"{file.path} is missing")
            elif path.stat().st_size != file.size or _sha256(path) != file.sha256:
                problems.append(f"{file.path} has changed")
        problems.extend(f"{relative} was added" for relative in sorted(found))
        return problems


def build_manifest(path: str | Path) -> Manifest:
    """Hash the files of a model folder, or one model file, in parallel by file.

    Raises:
        ArtifactError: Nothing there, a link that leads out, or tensors that cannot be read.
    """
    source = Path(path)
    entries = list(_walk(source))
    if not entries:
        raise ArtifactError(f"{source} holds no files.", why="There is no model to read.", fix=f"ls {source}")
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(lambda entry: _sha256(entry[1]), entries))
    files = [
        FileEntry(relative, file.stat().st_size, digest)
        for (relative, file), digest in zip(entries, digests, strict=True)
    ]
    return _finish(files, [file for _, file in entries])


def copy_with_manifest(source: Path, destination: Path) -> Manifest:
    """Copy a model folder or file, hashing while copying; nothing is left behind on an error.

    Args:
        source: Folder or file.
        destination: Folder to create.

    Raises:
        ArtifactError: A link leads out of the folder, or the destination exists.
    """
    entries = list(_walk(source))
    if destination.exists():
        raise ArtifactError(f"{destination} exists.", why="Nothing was copied.", fix=f"rm -r {destination}")
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".copy-", dir=destination.parent))
    try:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            files = list(pool.map(lambda entry: _copy(entry[0], entry[1], scratch), entries))
        manifest = _finish(files, [scratch / file.path for file in files])
        scratch.chmod(0o755)
        scratch.rename(destination)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return manifest


def _finish(files: list[FileEntry], paths: list[Path]) -> Manifest:
    ordered = tuple(sorted(files, key=lambda file: file.path))
    tensors = list(_tensors(paths))
    if tensors:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            described = pool.map(lambda one: [one.name, one.dtype, list(one.shape), _hash_tensor(one)], tensors)
            return Manifest(ordered, _digest(sorted(described)))
    weights = [file for file in ordered if PurePosixPath(file.path).suffix in WEIGHT_SUFFIXES] or list(ordered)
    return Manifest(ordered, _digest([[file.path, file.sha256] for file in weights]), "files")


def _tensors(paths: Iterable[Path]) -> Iterator[Tensor]:
    for path in paths:
        if path.suffix == ".safetensors":
            yield from open_safetensors(path).tensors.values()
        elif path.suffix == ".gguf":
            yield from read_gguf(path).tensors.values()


def _hash_tensor(tensor: Tensor) -> str:
    hasher = hashlib.sha256()
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        left = tensor.size
        while left:
            chunk = file.read(min(CHUNK, left))
            if not chunk:
                raise ArtifactError(f"{tensor.file.name} became shorter while it was read.", fix="try again")
            hasher.update(chunk)
            left -= len(chunk)
    return hasher.hexdigest()


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


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _walk(source: Path) -> Iterator[tuple[str, Path]]:
    """Relative path and path of every file, in order; links may not lead out of the folder."""
    if source.is_file():
        yield source.name, source
        return
    if not source.is_dir():
        raise ArtifactError(f"{source} does not exist.", why="There is no model to read.", fix=f"ls {source.parent}")
    home, count = source.resolve(), 0
    for path in sorted(source.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ArtifactError(
                f"{path.relative_to(source)} is a link that leads out of the folder.",
                why="The bytes that are logged would not be those that lie there.",
                fix=f"cp -rL {source} COPY, and use the copy",
            )
        if path.is_file():
            count += 1
            if count > MAX_FILES:
                raise ArtifactError(f"{source} holds more than {MAX_FILES:,} files.", fix="name the model's own folder")
            yield path.relative_to(source).as_posix(), path


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _bad(problem: str) -> ArtifactError:
    return ArtifactError(
        f"The manifest is wrong: {problem}.",
        why="Without it nobody can tell whether the files are those that were logged.",
        fix="log the model again with mlflow_quantgov.log_model",
    )
