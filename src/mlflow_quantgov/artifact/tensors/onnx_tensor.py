"""ONNX's TensorProto: type, shape, and where the stored bytes lie, in the file or in one beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.tensors.protobuf import LENGTH, VARINT, Field, Wire
from mlflow_quantgov.artifact.tensors.types import Tensor, unsound

# TensorProto.DataType -> our name of the storage type and its width in bits; strings have none.
DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("F32", 32), 2: ("U8", 8), 3: ("I8", 8), 4: ("U16", 16), 5: ("I16", 16), 6: ("I32", 32), 7: ("I64", 64),
    8: ("STRING", 0), 9: ("BOOL", 8), 10: ("F16", 16), 11: ("F64", 64), 12: ("U32", 32), 13: ("U64", 64),
    14: ("C64", 64), 15: ("C128", 128), 16: ("BF16", 16), 17: ("F8_E4M3", 8), 18: ("F8_E4M3FNUZ", 8),
    19: ("F8_E5M2", 8), 20: ("F8_E5M2FNUZ", 8), 21: ("U4", 4), 22: ("I4", 4), 23: ("F4", 4), 24: ("F8_E8M0", 8),
    25: ("U2", 2), 26: ("I2", 2),
}  # fmt: skip
BITS = dict(DATA_TYPES.values())
MAX_TENSORS = 300_000
MAX_DIMENSIONS = 64
MAX_SIDE = 2**48
MAX_LISTED_BYTES = 2_000_000
"""Of one tensor whose integers are written one by one; tools write only small ones that way."""
_ALL_LISTED_BYTES = 16_000_000
_MAX_ENTRIES = 16
_RAW, _STRINGS = 9, 6
# Fields whose packed numbers are little-endian floats, and those whose numbers are varints.
_FLOATS = {4: {"F32", "C64"}, 10: {"F64", "C128"}}
_VARINTS = {
    5: {"I32", "I16", "I8", "I4", "I2", "U16", "U8", "U4", "U2", "F4", "BOOL", "F16", "BF16", "F8_E4M3",
        "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"},
    7: {"I64"}, 11: {"U32", "U64"},
}  # fmt: skip


@dataclass(frozen=True)
class ListedTensor(Tensor):
    """A tensor whose numbers are written one by one, so that its bytes do not lie in the file as they are."""

    data: bytes = b""
    """What they would be."""

    def raw(self, limit: int | None = None) -> NDArray[np.uint8]:
        """See `Tensor`."""
        return np.frombuffer(self.data if limit is None else self.data[:limit], dtype=np.uint8)


@dataclass
class TensorReader:
    """Reads the tensors of one file."""

    wire: Wire
    count: int = 0
    listed: int = 0
    sizes: dict[Path, int] = field(default_factory=dict)
    """Of the files beside it, in bytes."""

    def read(self, message: Field) -> Tensor:
        """One tensor; its payload is not read.

        Raises:
            ArtifactError: Its parts contradict each other, or it does not lie where it says.
        """
        self.count += 1
        if self.count > MAX_TENSORS:
            raise unsound(self.wire.path, f"it has more than {MAX_TENSORS:,} tensors")
        shape: list[int] = []
        entries: dict[str, str] = {}
        name, kind, external, stored = "", 0, False, list[Field]()
        for one in self.wire.fields(message.begin, message.end):
            if one.number == 1:
                shape += self.wire.integers(one, 16 * MAX_DIMENSIONS)
            elif one.number == 2:
                kind = self.wire.expect(one, VARINT).value
            elif one.number == 3:
                raise unsound(self.wire.path, "it holds a tensor in segments, which nothing writes")
            elif one.number == 8:
                name = self.wire.text(one)
            elif one.number in {4, 5, 7, 9, 10, 11} or (one.number == _STRINGS and not stored):
                # A list that is not packed has a field for each number, a list of strings for each string.
                stored.append(one)
            elif one.number == 13 and len(entries) < _MAX_ENTRIES:
                key, value = self.entry(self.wire.expect(one, LENGTH))
                entries[key] = value
            elif one.number == 14:
                external = self.wire.expect(one, VARINT).value == 1
        self._check(name, kind, shape, stored, external or bool(entries))
        dtype, width = DATA_TYPES[kind]
        size = -(-prod(shape) * width // 8)
        if external or entries:
            file, offset = self._beside(name, entries, size)
            return Tensor(name, dtype, tuple(shape), file, offset, size)
        return self._inside(Tensor(name, dtype, tuple(shape), self.wire.path, message.begin, size), stored)

    def entry(self, message: Field) -> tuple[str, str]:
        """A StringStringEntryProto."""
        texts = {1: "", 2: ""}
        for one in self.wire.fields(message.begin, message.end):
            if one.number in texts:
                texts[one.number] = self.wire.text(one)
        return texts[1], texts[2]

    def _check(self, name: str, kind: int, shape: list[int], stored: list[Field], external: bool) -> None:
        if kind not in DATA_TYPES:
            raise unsound(self.wire.path, f"the tensor {name[:100]!r} has the unknown type {kind}")
        if len(shape) > MAX_DIMENSIONS or any(not 0 <= side < MAX_SIDE for side in shape) or prod(shape) >= MAX_SIDE:
            raise unsound(self.wire.path, f"the tensor {name[:100]!r} has an impossible shape")
        if len(stored) > 1 or (stored and external):
            raise unsound(self.wire.path, f"the tensor {name[:100]!r} is stored in more than one way")

    def _inside(self, tensor: Tensor, stored: list[Field]) -> Tensor:
        """A tensor whose numbers stand in the file."""
        if tensor.dtype == "STRING":
            return tensor
        if not stored:
            if tensor.size:
                raise unsound(self.wire.path, f"the tensor {tensor.name[:100]!r} has no values")
            return tensor
        where = self.wire.expect(stored[0], LENGTH)
        length = where.end - where.begin
        if where.number == _RAW or tensor.dtype in _FLOATS.get(where.number, set()):
            if length != tensor.size:
                raise unsound(
                    self.wire.path,
                    f"the tensor {tensor.name[:100]!r} has {length:,} bytes, its shape needs {tensor.size:,}",
                )
            return Tensor(tensor.name, tensor.dtype, tensor.shape, tensor.file, where.begin, length)
        if tensor.dtype not in _VARINTS.get(where.number, set()):
            raise unsound(self.wire.path, f"the tensor {tensor.name[:100]!r} is stored as numbers of another type")
        return self._numbers(tensor, where)

    def _numbers(self, tensor: Tensor, where: Field) -> Tensor:
        """Decode varints; `size` stays that of the tensor, not of how its numbers are spelled."""
        self.listed += where.end - where.begin
        if self.listed > _ALL_LISTED_BYTES:
            raise unsound(self.wire.path, f"more than {_ALL_LISTED_BYTES:,} bytes of its tensors are lists of numbers")
        numbers = varints(self.wire.data(where, MAX_LISTED_BYTES))
        # Values narrower than a byte are packed before they are listed.
        data = numbers.astype(f"<u{max(BITS[tensor.dtype] // 8, 1)}").tobytes()
        if (numbers.size and len(data) != tensor.size) or (not numbers.size and tensor.size):
            raise unsound(
                self.wire.path, f"the tensor {tensor.name[:100]!r} has another number of values than its shape"
            )
        return ListedTensor(tensor.name, tensor.dtype, tensor.shape, tensor.file, where.begin, tensor.size, data)

    def _beside(self, name: str, entries: dict[str, str], size: int) -> tuple[Path, int]:
        """File and offset of a tensor that lies beside the graph."""
        problem = f"the tensor {name[:100]!r} is said to lie in {entries.get('location', '')[:100]!r}"
        offset, length = _whole(entries.get("offset", "0")), _whole(entries.get("length", str(size)))
        if offset is None or length is None or length != size:
            raise unsound(self.wire.path, f"{problem}, with an offset or length that is not that of its shape")
        file = self._file(entries.get("location", ""), problem)
        if offset + size > self.sizes[file]:
            raise unsound(self.wire.path, f"{problem}, up to byte {offset + size:,}; that has {self.sizes[file]:,}")
        return file, offset

    def _file(self, location: str, problem: str) -> Path:
        """A file in the folder of the graph or below, and nowhere else."""
        pure, folder = PurePosixPath(location), self.wire.path.parent
        plain = location.isprintable() and "\\" not in location and ":" not in location and len(location) < 1024
        if not location or not plain or pure.is_absolute() or ".." in pure.parts:
            raise unsound(self.wire.path, f"{problem}, which is no file name inside its folder")
        file = folder / pure
        if file not in self.sizes:
            if not file.is_file():
                raise unsound(self.wire.path, f"{problem}, which is not there")
            if not file.resolve().is_relative_to(folder.resolve()) or file.resolve() == self.wire.path.resolve():
                raise unsound(self.wire.path, f"{problem}, which is itself or a link that leads out of its folder")
            self.sizes[file] = file.stat().st_size
        return file


def check_sharing(path: Path, tensors: Iterable[Tensor], *, same_type: bool = True) -> None:
    """Refuse tensors that share some of their bytes; those that share all of them are one tensor under two names.

    Args:
        path: Named in the error.
        tensors: Of all files.
        same_type: Whether shared bytes must have one type; OpenVINO writes equal bytes once, whatever they mean.

    Raises:
        ArtifactError: Two tensors overlap, or give the same bytes two types.
    """
    last: Tensor | None = None
    # Numbers that are written one by one do not lie anywhere as bytes.
    lying = (one for one in tensors if one.size and not isinstance(one, ListedTensor))
    for one in sorted(lying, key=lambda one: (str(one.file), one.offset, one.size)):
        if last is not None and one.file == last.file and one.offset < last.offset + last.size:
            if (one.offset, one.size) != (last.offset, last.size) or (same_type and one.dtype != last.dtype):
                raise unsound(path, f"the tensor {one.name[:100]!r} overlaps another")
            continue
        last = one


def varints(data: bytes) -> NDArray[np.uint64]:
    """Numbers that are packed as varints, as unsigned 64-bit patterns; what has no end is left out."""
    stored = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(stored < 128)
    if not ends.size:
        return np.zeros(0, dtype=np.uint64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    stored = stored[: ends[-1] + 1]
    place = np.arange(stored.size) - np.repeat(starts, ends - starts + 1)
    shifts = np.minimum(7 * place, 63).astype(np.uint64)
    parts = (stored & 127).astype(np.uint64) << shifts
    return np.add.reduceat(parts, starts)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
