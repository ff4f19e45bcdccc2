"""Quantize a full-precision GGUF with llama.cpp's own quantizer (`ggml_quantize_chunk`), without building its tools.

The rules follow llama.cpp's plain file types: vectors stay float32; every other matrix gets the type, or its fallback
where a row is no multiple of the type's block; the output matrix (or the embedding where both are one) gets more
bits.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored
from mlflow_quantgov.artifact.tensors.ggml_types import BY_NAME, NUMBER_OF
from mlflow_quantgov.errors import ArtifactError, UsageError, require, short

FILE_TYPES = {
    "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11, "Q4_K": 14, "Q5_K": 16, "Q6_K": 18,
    "IQ2_XXS": 19, "IQ2_XS": 20, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ2_S": 29, "IQ4_XS": 30,
    "IQ1_M": 31, "TQ1_0": 36, "TQ2_0": 37, "MXFP4": 38, "NVFP4": 39, "Q1_0": 40,
}  # fmt: skip
"""Tensor type to `general.file_type` of a file that holds mostly that type. `gguf` cannot write Q2_0 yet."""
NEED_IMPORTANCE = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})
"""Types whose quantizer stops the process where there is no importance of weights."""
_FALLBACK = {
    "Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0", "NVFP4": "Q4_0", "Q1_0": "Q4_0", "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
"""What llama.cpp uses for rows that the type's block does not divide; for NVFP4 and Q1_0 it names nothing."""
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


def quantize_gguf(
    source: Path,
    destination: Path,
    type: str,
    *,
    output_type: str | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
) -> QuantizedFile:
    """Quantize every matrix of a GGUF file.

    Args:
        source: A full-precision file (F32, F16 or BF16), such as `gguf_twin` writes.
        destination: File to write; it appears whole or not at all.
        type: Tensor type: `Q8_0`, `Q4_0`, `Q4_K`, `Q2_K`, ...
        output_type: Type of the output matrix, or of the embedding where the model has no output matrix of its own.
            None: as llama.cpp chooses, `Q6_K` (`Q8_0` where rows do not fit), and for `Q8_0` the same.
        importance: How much the errors in each column of a matrix count, by the tensor's name in the file, [columns]:
            the mean squares of its inputs, as llama.cpp's imatrix holds them. IQ1_S, IQ2_XXS and IQ2_XS need it for
            every matrix.

    Raises:
        UsageError: The type is unknown or lacks importances, or source and destination are one file.
        ArtifactError: The source does not read, or is quantized already.
        MissingExtraError: `gguf`, or a package with llama.cpp, is not installed.
    """
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    writable = [name for name in FILE_TYPES if name in gguf.GGMLQuantizationType.__members__]
    for name in (type, output_type or type):
        if name not in writable:
            raise UsageError(
                f"{short(name)} is no type that this quantizer writes.",
                why="Types that llama.cpp no longer writes, or that the installed `gguf` cannot write, are left out.",
                fix=f"use one of {', '.join(writable)}",
            )
    if destination.exists() and destination.samefile(source):
        raise UsageError(
            "Source and destination are the same file.", why="The parent would be lost.", fix="name another destination"
        )
    reader = read_full_precision(source)
    chosen = _types(reader, type, output_type or ("Q8_0" if type == "Q8_0" else "Q6_K"))
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        _write(reader, temporary, type, chosen, importance or {})
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
    return QuantizedFile(destination, type, dict(Counter(chosen.values())), destination.stat().st_size)


def read_full_precision(source: Path) -> Any:
    """Open a full-precision GGUF file.

    Raises:
        MissingExtraError: `gguf` is not installed.
        ArtifactError: It does not read, or holds quantized tensors.
    """
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
    if wanted in _FALLBACK and row % BY_NAME[wanted].block:
        wanted = _FALLBACK[wanted]
    return "F16" if row % 32 else wanted


def _write(
    reader: Any, path: Path, type: str, chosen: dict[str, str], importance: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write metadata, then quantize and write tensor by tensor."""
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    writer = gguf.GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    copy_metadata(reader, writer)
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
        writer.write_tensor_data(quantized(_values(tensor), chosen[tensor.name], importance.get(tensor.name)))
    writer.close()


def copy_metadata(reader: Any, writer: Any) -> None:
    """Everything that a GGUF file says of itself, but its architecture and what types its tensors have."""
    gguf = require("gguf", extra="gguf", purpose="read and write GGUF files")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in _WRITTEN_ANEW:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)


def _values(tensor: Any) -> NDArray[np.float32]:
    """Float32 values of a full-precision GGUF tensor, in its logical shape."""
    kind = tensor.tensor_type.name
    shape = tuple(int(size) for size in reversed(tensor.shape))
    bits = np.frombuffer(np.asarray(tensor.data).tobytes(), dtype=np.uint32 if kind == "F32" else np.uint16)
    return np.ascontiguousarray(Stored(kind, shape, bits.reshape(shape)).widened())


def quantized(values: NDArray[np.float32], type: str, importance: NDArray[np.float32] | None = None) -> NDArray[Any]:
    """Quantize float32 values [..., row] with llama.cpp's own function.

    Args:
        values: The weights.
        type: Tensor type.
        importance: How much the errors of each column count, [row]; types that take none ignore it.

    Returns:
        Bytes [..., bytes per row]; float16 or float32 values where `type` is `F16` or `F32`.

    Raises:
        UsageError: The type needs importances and there are none, or they are not one per column.
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
    weights = _checked(importance, type, values.shape[-1])
    c = library().c
    kind = NUMBER_OF[type]
    row = values.shape[-1]
    rows = values.size // row
    result = np.zeros((*values.shape[:-1], int(c.ggml_row_size(kind, row))), dtype=np.uint8)
    source = np.ascontiguousarray(values, dtype=np.float32)
    c.ggml_quantize_init(kind)
    written = c.ggml_quantize_chunk(kind, _address(source), _address(result), 0, rows, row, _address(weights))
    if written != result.nbytes:
        raise ArtifactError(
            f"llama.cpp's quantizer wrote {written} bytes where {result.nbytes} were due.",
            why="The file would be unreadable.",
            fix="pip install -U 'mlflow-quantgov[gguf]'",
        )
    return result


def _checked(importance: NDArray[np.float32] | None, type: str, row: int) -> NDArray[np.float32] | None:
    """Importances as the library reads them: it would read past the end of fewer, and stops the process for none."""
    if importance is None:
        if type not in NEED_IMPORTANCE:
            return None
        raise UsageError(
            f"{type} needs the importance of every column, and a matrix has none.",
            why="llama.cpp chooses the entries of its table by it, and stops the process without.",
            fix="pass importance={tensor name: mean square of each of its inputs}",
        )
    found = np.ascontiguousarray(importance, dtype=np.float32)
    if found.shape != (row,) or not np.isfinite(found).all() or (found < 0).any():
        raise UsageError(
            f"The importances have the shape {found.shape}, or are not all numbers from 0; {row} numbers are due.",
            why="They say how much the errors in each column of the matrix count.",
            fix="pass one number per column, [columns], none negative",
        )
    return found


def _address(array: NDArray[Any] | None) -> ctypes.c_void_p | None:
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)
