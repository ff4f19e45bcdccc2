"""What decides a model's answers beside its weights: configuration, tokenizer, chat template, metadata of containers.

The weights digest is the same whatever stands in these files, and a changed chat template or rope base changes every
answer. So a measurement also names their digest. Cards, licences and pictures are left out: they change nothing.

What the header of a safetensors file says counts here, as that of a GGUF file does: torchao writes there how the codes
of its tensors are read (blocks, types, the rounding of activations). It is no part of the weights: those are tensors,
which a recipe has to give again byte for byte, whatever stands beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.files import list_files, parse_json
from mlflow_quantgov.artifact.tensors import GgufFile, SafetensorsFile, Tensor
from mlflow_quantgov.artifact.weights import OTHER_WEIGHT_SUFFIXES, file_names_count, json_digest, open_tensor_files
from mlflow_quantgov.errors import ArtifactError

_FOR_PEOPLE = {".md", ".png", ".jpg", ".jpeg", ".svg", ".gif", ".pdf"}
_ABOUT = ("license", "notice", "readme", "use_policy", ".git")
_FOR_LOADERS = {".gguf", ".json", ".jinja", ".model", ".py", ".pyc", ".so"}
"""What a loader reads under any name, if it is told to: `license.gguf` is a model, whatever it is called."""
_GGUF = "gguf"
"""Stands for the name of a GGUF file."""
_USUAL = ("format", "pt")
"""What the header of nearly every safetensors file says; without it a loader does the same."""
_MAX_BYTES = 1 << 30


def behaviour_digest(path: str | Path) -> str:
    """Digest over everything but weights and what is there for people.

    Args:
        path: Model folder, or one model file (whose own name does not count).

    Returns:
        `sha256:...` of the sorted list of names and sha256 as canonical JSON; what headers of safetensors files say
        beyond `format: pt` stands among them.

    Raises:
        ArtifactError: Nothing there, a file that cannot be read, or more than 1 GiB of such files.
    """
    source = Path(path)
    files = dict(list_files(source))
    opened = open_tensor_files(files)
    tensors = {name: file.tensors for name, file in opened.items()}
    named = file_names_count(files, tensors)
    described = [
        [_label(name, file, source, named=named), _digest_of(file, tensors.get(name, {}))]
        for name, file in files.items()
        if _counts(name)
    ]
    if said := _said_in_headers(opened, named=named):
        described.append(["safetensors", "metadata", json_digest(said)])
    return json_digest(sorted(described))


def _counts(name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix == ".safetensors" or path.suffix in OTHER_WEIGHT_SUFFIXES - {".xml"}:
        return False
    about = path.name.lower().startswith(_ABOUT) and path.suffix not in _FOR_LOADERS
    return path.suffix.lower() not in _FOR_PEOPLE and not about


def _label(name: str, file: Path, source: Path, *, named: bool) -> str:
    """Name under which a file counts.

    Args:
        name: Its relative path.
        file: The file.
        source: The model's folder, or the file itself.
        named: Whether a GGUF file counts by its own name (see `file_names_count`).
    """
    if file.suffix == ".gguf" and not named:
        return _GGUF
    # A file that is called as GGUF files count, and holds the header of one, is none.
    return "" if source.is_file() else f"./{name}" if name == _GGUF else name


def _said_in_headers(files: Mapping[str, SafetensorsFile | GgufFile], *, named: bool) -> list[list[str]]:
    """What the headers of safetensors files say, sorted; once where several files say the same.

    Texts that are JSON count as what they say, not as how it is written. Where two files say something else under one
    key, the one read last counts for a loader: then the file is named too, as where names of
    files count (`named`).
    """
    found: dict[str, dict[str, str]] = {}
    for name, file in files.items():
        if isinstance(file, SafetensorsFile):
            for key, text in file.metadata.items():
                if (key, text) != _USUAL:
                    found.setdefault(json.dumps(key), {})[name] = _meaning(text)
    said = []
    for key, texts in found.items():
        agreed = set(texts.values())
        if named or len(agreed) > 1:
            said += [[key, text, name] for name, text in texts.items()]
        else:
            said.append([key, *agreed])
    return sorted(said)


def _meaning(text: str) -> str:
    """A text as canonical JSON, led by whether it was an object or a list itself; ASCII, whatever it holds."""
    try:
        if text.lstrip()[:1] in ("{", "["):
            return f"json {json.dumps(parse_json(text.encode()), sort_keys=True, separators=(',', ':'))}"
    except (ValueError, RecursionError):
        pass  # Then it is text like any other.
    return f"text {json.dumps(text)}"


def _digest_of(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """sha256 of a file; of a GGUF file, of everything before its first tensor."""
    size = min((tensor.offset for tensor in tensors.values()), default=file.stat().st_size)
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
