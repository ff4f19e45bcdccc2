"""Protocol Buffers' wire format, field by field; nothing that a caller does not ask for is read.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mlflow_quantgov.artifact.tensors.types import unsound
from mlflow_quantgov.errors import ArtifactError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 6_000_000
"""A graph of a hundred layers has some hundred thousand."""
MAX_READ_BYTES = 256_000_000
"""Of texts and numbers that callers ask for; payloads are passed over."""
MAX_TEXT = 65_536
_WINDOW = 1 << 16
_MAX_VARINT = 10
_MASK = (1 << 64) - 1


class Field(NamedTuple):
    """One field: its number, its wire type, and its value or where its bytes lie."""

    number: int
    wire: int
    value: int
    """Of a varint or fixed field, unsigned; 0 for others."""
    begin: int
    end: int


class Wire:
    """Walks over the fields of a file; work and memory are bounded by the fields, not by what is passed over."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        """Use an open file.

        Args:
            path: Named in errors.
            file: Open for reading bytes, seekable.
            size: Of the file, in bytes.
        """
        self.path, self.size = path, size
        self._file, self._buffer, self._start = file, b"", 0
        self._fields = self._read = 0

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """Every field of the message that lies in these bytes.

        Raises:
            ArtifactError: The message ends in the middle of a field, a field is longer than its message, has the
                number 0 or a wire type that does not exist, or there are too many fields.
        """
        position = begin
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise unsound(self.path, f"its header has more than {MAX_FIELDS:,} fields")
            key, position = self._varint(position, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise unsound(self.path, f"a field of the number {number} stands in its header")
            if wire == VARINT:
                value, stop = self._varint(position, end)
                yield Field(number, wire, value, position, stop)
            elif wire == LENGTH:
                length, position = self._varint(position, end)
                stop = self._within(position, length, end)
                yield Field(number, wire, 0, position, stop)
            elif wire in {FIXED32, FIXED64}:
                stop = self._within(position, 4 if wire == FIXED32 else 8, end)
                yield Field(number, wire, int.from_bytes(self._take(position, stop), "little"), position, stop)
            else:
                raise unsound(self.path, f"a field of the unknown wire type {wire} stands in its header")
            position = stop

    def data(self, field: Field, limit: int) -> bytes:
        """Bytes of a length-delimited field.

        Raises:
            ArtifactError: It has another wire type, or more bytes than `limit`.
        """
        self.expect(field, LENGTH)
        if field.end - field.begin > limit:
            raise unsound(self.path, f"a value of {field.end - field.begin:,} bytes stands in its header")
        self._read += field.end - field.begin
        if self._read > MAX_READ_BYTES:
            raise unsound(self.path, f"the texts of its header are longer than {MAX_READ_BYTES:,} bytes")
        return self._take(field.begin, field.end)

    def text(self, field: Field) -> str:
        """A text.

        Raises:
            ArtifactError: It has another wire type, is too long, or is not UTF-8.
        """
        try:
            return self.data(field, MAX_TEXT).decode()
        except UnicodeDecodeError as error:
            raise unsound(self.path, "a text in its header is not UTF-8") from error

    def integers(self, field: Field, limit: int) -> list[int]:
        """Numbers of a repeated int64 field, written one by one or packed.

        Raises:
            ArtifactError: It has another wire type, or more than `limit` bytes.
        """
        if field.wire == VARINT:
            return [signed(field.value)]
        self.expect(field, LENGTH)
        if field.end - field.begin > limit:
            raise unsound(self.path, f"a list of {field.end - field.begin:,} bytes stands in its header")
        found, position = [], field.begin
        while position < field.end:
            value, position = self._varint(position, field.end)
            found.append(signed(value))
        return found

    def expect(self, field: Field, wire: int) -> Field:
        """The field itself.

        Raises:
            ArtifactError: It has another wire type.
        """
        if field.wire != wire:
            raise unsound(self.path, f"its field {field.number} has the wire type {field.wire}, not {wire}")
        return field

    def _within(self, position: int, length: int, end: int) -> int:
        if length > end - position:
            raise self._cut(f"a field of {length:,} bytes is longer than the {end - position:,} that are left for it")
        return position + length

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        at = position - self._start
        if position < end and 0 <= at < len(self._buffer) and self._buffer[at] < 128:
            return self._buffer[at], position + 1
        value = shift = 0
        for place in range(position, min(end, position + _MAX_VARINT)):
            at = place - self._start
            if not 0 <= at < len(self._buffer):
                self._fill(place)
                at = 0
            byte = self._buffer[at]
            value |= (byte & 127) << shift
            if byte < 128:
                return value & _MASK, place + 1
            shift += 7
        raise self._cut("a number in its header has no end")

    def _take(self, begin: int, end: int) -> bytes:
        at = begin - self._start
        if at >= 0 and end - self._start <= len(self._buffer):
            return self._buffer[at : end - self._start]
        if end - begin < _WINDOW and begin < end:
            self._fill(begin)
            found = self._buffer[: end - begin]
        else:
            self._file.seek(begin)
            found = self._file.read(end - begin)
        if len(found) != end - begin:
            raise unsound(self.path, "it became shorter while it was read")
        return found

    def _fill(self, position: int) -> None:
        self._file.seek(position)
        self._buffer, self._start = self._file.read(_WINDOW), position
        if not self._buffer:
            raise unsound(self.path, "it became shorter while it was read")

    def _cut(self, problem: str) -> ArtifactError:
        return unsound(self.path, f"it is cut off, or no such file: {problem}")


def signed(value: int) -> int:
    """The int64 that a varint stands for."""
    return value - (1 << 64) if value >> 63 else value
