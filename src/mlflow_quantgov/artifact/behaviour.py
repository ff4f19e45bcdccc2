"""What decides a model's answers beside its weights: configuration, tokenizer, chat template, GGUF metadata.

The weights digest is the same whatever stands in these files, and a changed chat template or rope base changes every
answer. So a measurement also names their digest. Cards, licences and pictures are left out: they change nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.files import list_files
from mlflow_quantgov.artifact.tensors import read_gguf
from mlflow_quantgov.artifact.weights import OTHER_WEIGHT_SUFFIXES, json_digest
from mlflow_quantgov.errors import ArtifactError

_FOR_PEOPLE = {".md", ".png", ".jpg", ".jpeg", ".svg", ".gif", ".pdf"}
_ABOUT = ("license", "notice", "readme", "use_policy", ".git")
_MAX_BYTES = 1 << 30


def behaviour_digest(path: str | Path) -> str:
    """Digest over everything but weights and what is there for people.

    Args:
        path: Model folder, or one model file (whose own name does not count).

    Returns:
        `sha256:...` of the sorted list of names and sha256 as canonical JSON.

    Raises:
        ArtifactError: Nothing there, a file that cannot be read, or more than 1 GiB of such files.
    """
    source = Path(path)
    found = list_files(source)
    described = [[_label(name, file, source), _digest_of(file)] for name, file in found if _counts(name)]
    return json_digest(sorted(described))


def _counts(name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix == ".safetensors" or path.suffix in OTHER_WEIGHT_SUFFIXES - {".xml"}:
        return False
    return path.suffix.lower() not in _FOR_PEOPLE and not path.name.lower().startswith(_ABOUT)


def _label(name: str, file: Path, source: Path) -> str:
    return "gguf" if file.suffix == ".gguf" else "" if source.is_file() else name


def _digest_of(file: Path) -> str:
    """sha256 of a file; of a GGUF file, of everything before its first tensor."""
    size = file.stat().st_size
    if file.suffix == ".gguf":
        size = min((tensor.offset for tensor in read_gguf(file).tensors.values()), default=size)
    if size > _MAX_BYTES:
        raise ArtifactError(
            f"{file.name} has {size:,} bytes and is no file of weights that can be read.",
            why="It may decide every answer of the model, and files of that kind are small.",
            fix=f"move it out of the model's folder: ls -l {file}",
        )
    hasher, left = hashlib.sha256(), size
    with file.open("rb") as reader:
        while left and (chunk := reader.read(min(left, 1 << 20))):
            hasher.update(chunk)
            left -= len(chunk)
    return hasher.hexdigest()
