"""The parts of a model that are its weights, each with its digest, and the one digest over all of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.files import list_files
from mlflow_quantgov.artifact.folder import found_by_name, tensor_files_read
from mlflow_quantgov.artifact.graph_files import weights_beside
from mlflow_quantgov.artifact.tensors import GgufFile, SafetensorsFile, Tensor, open_safetensors, read_gguf
from mlflow_quantgov.errors import ArtifactError

CHUNK = 4 * 1024 * 1024
OTHER_WEIGHT_SUFFIXES = {".onnx", ".onnx_data", ".ort", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".data", ".xml"}
"""Files of weights whose tensors have no digest of their own."""


@dataclass(frozen=True)
class WeightPart:
    """A tensor, or a file of weights whose tensors cannot be read one by one."""

    name: str
    """Of the tensor (see `tensors_in`); path of the file."""
    sha256: str
    """Hex digest of its bytes."""
    dtype: str | None = None
    """Storage type; None for a file."""
    shape: tuple[int, ...] = ()


def weights_digest(parts: Iterable[WeightPart]) -> str:
    """`sha256:...` over all parts, whatever files the tensors of one model lie in."""
    listed = list(parts)
    tensors = sorted(
        (one for one in listed if one.dtype is not None), key=lambda one: (one.name, one.sha256, one.dtype)
    )
    files = [one for one in listed if one.dtype is None]
    described: list[list[object]] = [[one.name, one.dtype, list(one.shape), one.sha256] for one in tensors]
    return json_digest(described + [[one.name, one.sha256] for one in files])


def open_tensor_files(paths: Mapping[str, Path]) -> dict[str, SafetensorsFile | GgufFile]:
    """Each file that is read tensor by tensor, by its relative path; nothing but headers is read.

    Raises:
        ArtifactError: A header is wrong.
    """
    found: dict[str, SafetensorsFile | GgufFile] = {}
    for name, path in paths.items():
        if path.suffix == ".safetensors":
            found[name] = open_safetensors(path)
        elif path.suffix == ".gguf":
            found[name] = read_gguf(path)
    return found


def file_names_count(paths: Mapping[str, Path], files: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether the names of files say which tensors a loader takes, so that each tensor counts under its file's name.

    That is so where a tensor's name stands in two files, where a loader leaves one of the files aside, and where it
    may take weights of another kind (`pytorch_model.bin`) unless a file is called as it expects.

    Args:
        paths: Every file of the model by its relative path.
        files: Tensors of those that are read tensor by tensor.
    """
    others = any(PurePosixPath(name).suffix in OTHER_WEIGHT_SUFFIXES for name in paths)
    if not files or (len(files) == 1 and not others):
        return False
    if len(set().union(*files.values())) < sum(map(len, files.values())):
        return True
    name, path = next(iter(paths.items()))
    read = tensor_files_read(path.parents[name.count("/")], paths)
    unsure = others and any(one.endswith(".safetensors") for one in files) and not found_by_name(paths)
    return unsure or read != files.keys()


def tensors_in(paths: Mapping[str, Path]) -> list[Tensor]:
    """Every tensor of the files that are read tensor by tensor.

    Where a loader reads them all, it does not count in which of them a tensor lies. Where names of files decide (see
    `file_names_count`), every tensor is called `FILE/./NAME`: no tensor alone can be called so.

    Args:
        paths: Files by their relative paths.

    Raises:
        ArtifactError: A header is wrong.
    """
    files = {name: file.tensors for name, file in open_tensor_files(paths).items()}
    if not file_names_count(paths, files):
        return [tensor for tensors in files.values() for tensor in tensors.values()]
    return [
        replace(tensor, name=f"{file}/./{tensor.name}")
        for file, tensors in files.items()
        for tensor in tensors.values()
    ]


def tensor_parts(paths: Mapping[str, Path]) -> list[WeightPart]:
    """Every tensor, hashed in parallel.

    Raises:
        ArtifactError: A file cannot be read, or changed meanwhile.
    """
    with pool() as workers:
        return list(workers.map(_part, tensors_in(paths)))


def weight_files(paths: Mapping[str, Path], *, alone: bool) -> list[str]:
    """Names of the weight files that are not read tensor by tensor, in order.

    Args:
        paths: Every file of the model by its relative path.
        alone: Whether no tensor was read at all: then every file counts where none is known as one of weights.
    """
    beside = weights_beside(dict(paths))
    found = [name for name in sorted(paths) if PurePosixPath(name).suffix in OTHER_WEIGHT_SUFFIXES or name in beside]
    return found or (sorted(paths) if alone else [])


def weight_parts(path: Path) -> list[WeightPart]:
    """Every part of the weights of a model folder or file.

    Raises:
        ArtifactError: A file cannot be read.
    """
    paths = dict(list_files(path))
    tensors = tensor_parts(paths)
    return tensors + [WeightPart(name, _file_digest(paths[name])) for name in weight_files(paths, alone=not tensors)]


def pool() -> ThreadPoolExecutor:
    """Workers for hashing."""
    return ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))


def json_digest(value: object) -> str:
    """`sha256:...` of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _part(tensor: Tensor) -> WeightPart:
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
    return WeightPart(tensor.name, hasher.hexdigest(), tensor.dtype, tuple(tensor.shape))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
