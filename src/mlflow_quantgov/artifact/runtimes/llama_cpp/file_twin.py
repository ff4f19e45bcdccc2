"""Lossless twins of a full-precision GGUF file in other types of float: which of them is fast depends on the processor."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import copy_metadata, read_full_precision
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import FILE_TYPES, Twin, TwinProof
from mlflow_quantgov.errors import ArtifactError, require


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Every tensor of a full-precision GGUF file, as views of the mapped file.

    Raises:
        MissingExtraError: `gguf` is not installed.
        ArtifactError: It does not read, or holds quantized tensors.
    """
    return {tensor.name: _stored(tensor) for tensor in read_full_precision(path).tensors}


def file_twin(path: Path, cache: Path, dtype: str) -> Twin:
    """Write (or find in `cache`) the same file with its matrices in another type, and prove it equal.

    The proof is made anew on every call: a file in the cache is not believed.

    Args:
        path: A GGUF file of F32, F16 or BF16 tensors.
        cache: Folder to keep the twin in.
        dtype: `F32`, `F16` or `BF16`, which must hold every number of the matrices.

    Raises:
        MissingExtraError: `gguf` is not installed.
        ArtifactError: The type does not hold the numbers, or the twin differs.
    """
    tensors = stored_tensors(path)
    if not all(tensor.holds(dtype) for tensor in tensors.values() if len(tensor.shape) > 1):
        raise _no_twin(path, f"{dtype} does not hold its numbers exactly")
    state = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()[:32]
    cache.mkdir(parents=True, exist_ok=True)
    twin = cache / f"file-twin-{key}-{dtype}.gguf"
    if not twin.is_file():
        _write(path, tensors, twin, dtype)
    found = stored_tensors(twin)
    differing = [name for name in tensors.keys() | found.keys() if not _equal(tensors.get(name), found.get(name))]
    if differing:
        twin.unlink(missing_ok=True)
        raise _no_twin(path, f"the written file differs in {', '.join(sorted(differing)[:3])}")
    elements = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    return Twin(twin, TwinProof(len(tensors), elements, dtype, ()))


def _stored(tensor: Any) -> Stored:
    kind = tensor.tensor_type.name
    shape = tuple(int(size) for size in reversed(tensor.shape))
    bits = np.asarray(tensor.data).reshape(-1).view(np.uint32 if kind == "F32" else np.uint16)
    return Stored(kind, shape, bits.reshape(shape))


def _write(path: Path, tensors: dict[str, Stored], twin: Path, dtype: str) -> None:
    """Write the twin under a temporary name, and give it its own when it is whole."""
    gguf = require("gguf", extra="gguf", purpose="write GGUF files")
    reader = read_full_precision(path)
    kinds = {name: tensor.dtype if len(tensor.shape) == 1 else dtype for name, tensor in tensors.items()}
    temporary = twin.with_name(f".{twin.name}.{os.getpid()}.partial")
    try:
        writer = gguf.GGUFWriter(temporary, str(reader.fields["general.architecture"].contents()))
        copy_metadata(reader, writer)
        writer.add_file_type(FILE_TYPES[dtype])
        for name, tensor in tensors.items():
            held = np.dtype(np.float32 if kinds[name] == "F32" else np.float16)
            size = int(np.prod(tensor.shape)) * held.itemsize
            writer.add_tensor_info(name, tensor.shape, held, size, raw_dtype=gguf.GGMLQuantizationType[kinds[name]])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            data = tensor.widened() if kinds[name] == "F32" else tensor.as_16_bit(kinds[name])
            writer.write_tensor_data(np.ascontiguousarray(data))
        writer.close()
        temporary.replace(twin)
    finally:
        temporary.unlink(missing_ok=True)


def _equal(one: Stored | None, other: Stored | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(np.array_equal(one.widened().view(np.uint32), other.widened().view(np.uint32)))


def _no_twin(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"No lossless twin of {path.name} can be made: {problem}.",
        why="Another model than the parent would be timed.",
        fix=f"quantgov inspect {path}",
    )
