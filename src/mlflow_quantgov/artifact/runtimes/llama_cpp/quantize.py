"""Quantize a full-precision GGUF with llama.cpp's own quantizer (`ggml_quantize_chunk`), without building its tools.

The rules follow llama.cpp's plain file types: vectors stay float32; every other matrix gets the type, or its fallback
where a row is no multiple of the type's block; the output matrix (or the embedding where both are one) gets more
bits.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored
from mlflow_quantgov.errors import ArtifactError, UsageError, require

FILE_TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16, "Q6_K": 18,
    "IQ4_NL": 25,
}  # fmt: skip
"""Tensor type to `general.file_type` of a file that holds mostly that type."""
_FALLBACK = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp uses for rows that no block of 256 divides."""
_SOURCES = ("F32", "F16", "BF16")
_WRITTEN_ANEW = ("general.file_type", "general.quantization_version")


@dataclass(frozen=True)
class QuantizedFile:
    """What was written."""

    path: Path
    type: str
    tensor_types: dict[str, int]
    """Storage type to number of tensors."""
    bytes: int


def quantize_gguf(source: Path, destination: Path, type: str, *, output_type: str | None = None) -> QuantizedFile:
    """Quantize every matrix of a GGUF file.

    Args:
        source: A full-precision file (F32, F16 or BF16), such as `gguf_twin` writes.
        destination: File to write; it appears whole or not at all.
        type: Tensor type: `Q8_0`, `Q4_0`, `Q4_K`, `Q2_K`, ...
        output_type: Type of the output matrix, or of the embedding where the model has no output matrix of its own.
            None: as llama.cpp chooses, `Q6_K` (`Q8_0` where rows do not fit), and for `Q8_0` the same.

    Raises:
        UsageError: The type is unknown, or source and destination are one file.
        ArtifactError: The source does not read, or is quantized already.
        MissingExtraError: `gguf` or `xllamacpp` is not installed.
    """
    for name in (type, output_type or type):
        if name not in FILE_TYPES:
            raise UsageError(
                f"{name!r} is no type that this quantizer writes.",
                why="Types that need an importance matrix, or that llama.cpp no longer writes, are left out.",
                fix=f"use one of {', '.join(FILE_TYPES)}",
            )
    if destination.exists() and destination.samefile(source):
        raise UsageError(
            "Source and destination are the same file.", why="The parent would be lost.", fix="name another destination"
        )
    reader = _read(source)
    chosen = _types(reader, type, output_type or ("Q8_0" if type == "Q8_0" else "Q6_K"))
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        _write(reader, temporary, type, chosen)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
    return QuantizedFile(destination, type, dict(Counter(chosen.values())), destination.stat().st_size)


def _read(source: Path) -> Any:
    """Open a full-precision GGUF file."""
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise ArtifactError(
            f"{source.name} does not read as GGUF.",
            why="Nothing can be quantized from it.",
            fix=f"quantgov inspect {source}",
        ) from error
    held = sorted({tensor.tensor_type.name for tensor in reader.tensors} - set(_SOURCES))
    if held:
        raise ArtifactError(
            f"{source.name} is quantized already ({', '.join(held)}).",
            why="Quantizing twice adds the errors of both, and hides the parent.",
            fix="quantize the full-precision file",
        )
    return reader


def _types(reader: Any, type: str, output_type: str) -> dict[str, str]:
    """Storage type of every tensor."""
    names = {tensor.name for tensor in reader.tensors}
    output = "output.weight" if "output.weight" in names else "token_embd.weight"
    chosen: dict[str, str] = {}
    for tensor in reader.tensors:
        wanted = output_type if tensor.name == output else type
        chosen[tensor.name] = "F32" if len(tensor.shape) == 1 else fitting_type(wanted, int(tensor.shape[0]))
    return chosen


def fitting_type(wanted: str, row: int) -> str:
    """The wanted type, or llama.cpp's fallback where its block does not divide a row of that many weights."""
    if wanted in _FALLBACK and row % 256:
        wanted = _FALLBACK[wanted]
    return "F16" if row % 32 else wanted


def _write(reader: Any, path: Path, type: str, chosen: dict[str, str]) -> None:
    """Write metadata, then quantize and write tensor by tensor."""
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    writer = gguf.GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in _WRITTEN_ANEW:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)
    writer.add_file_type(FILE_TYPES[type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        kind = gguf.GGMLQuantizationType[chosen[tensor.name]]
        stored = shape if chosen[tensor.name] in _SOURCES else gguf.quant_shape_to_byte_shape(shape, kind)
        held = np.dtype({"F32": np.float32, "F16": np.float16}.get(chosen[tensor.name], np.uint8))
        writer.add_tensor_info(tensor.name, stored, held, int(np.prod(stored)) * held.itemsize, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(quantized(_values(tensor), chosen[tensor.name]))
    writer.close()


def _values(tensor: Any) -> NDArray[np.float32]:
    """Float32 values of a full-precision GGUF tensor, in its logical shape."""
    kind = tensor.tensor_type.name
    shape = tuple(int(size) for size in reversed(tensor.shape))
    bits = np.frombuffer(np.asarray(tensor.data).tobytes(), dtype=np.uint32 if kind == "F32" else np.uint16)
    return np.ascontiguousarray(Stored(kind, shape, bits.reshape(shape)).widened())


def quantized(values: NDArray[np.float32], type: str) -> NDArray[Any]:
    """Quantize float32 values [..., row] with llama.cpp's own function.

    Returns:
        Bytes [..., bytes per row]; float16 or float32 values where `type` is `F16` or `F32`.

    Raises:
        ArtifactError: Values are not finite, or the quantizer wrote another number of bytes than it announced.
    """
    if not np.isfinite(values).all():
        raise ArtifactError(
            "A tensor holds values that are not finite.",
            why="They cannot be quantized, and the parent itself is broken.",
            fix="check the parent's files",
        )
    if type in ("F32", "F16"):
        return values.astype(np.float32 if type == "F32" else np.float16)
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    c = library().c
    kind = int(gguf.GGMLQuantizationType[type])
    row = values.shape[-1]
    rows = values.size // row
    result = np.zeros((*values.shape[:-1], int(c.ggml_row_size(kind, row))), dtype=np.uint8)
    source = np.ascontiguousarray(values, dtype=np.float32)
    c.ggml_quantize_init(kind)
    written = c.ggml_quantize_chunk(
        kind, source.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p), 0, rows, row, None
    )
    if written != result.nbytes:
        raise ArtifactError(
            f"llama.cpp's quantizer wrote {written} bytes where {result.nbytes} were due.",
            why="The file would be unreadable.",
            fix="pip install -U 'mlflow-quantgov[gguf]'",
        )
    return result
