"""What an archive writes down about itself: of which pieces a file is made, and what a model answered."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_quantgov.artifact.files import MAX_JSON_BYTES, parse_json
from mlflow_quantgov.evidence.measure.archive.coding import MAX_PIECE

FILE_SCHEMA = "quantgov/archived-file/v1"
ANSWERS_SCHEMA = "quantgov/archived-answers/v1"
MAX_RECORD = 2 * MAX_JSON_BYTES
"""Bytes, as much as is parsed at all; the pieces of a file of two terabytes take a third of it."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PieceRecord:
    """One piece of a file."""

    sha256: str
    """Of its plain bytes; under this name it lies in the archive."""
    size: int
    tensor: str | None
    """Tensor to which the bytes belong."""


def file_record(pieces: list[PieceRecord]) -> bytes:
    """The pieces of a file in order, as JSON."""
    listed = [[one.sha256, one.size, one.tensor] for one in pieces]
    return json.dumps({"schema": FILE_SCHEMA, "pieces": listed}, separators=(",", ":")).encode()


def read_file_record(data: bytes, size: int) -> list[PieceRecord]:
    """The pieces of a file of `size` bytes.

    Raises:
        ValueError: This is no such record, or its pieces are not as long as the file.
    """
    try:
        found = parse_json(data)
        if found["schema"] != FILE_SCHEMA:
            raise ValueError("another schema")
        pieces = [PieceRecord(str(sha256), length, tensor) for sha256, length, tensor in found["pieces"]]
    except (KeyError, TypeError) as error:
        raise ValueError("it is no record of a file") from error
    for piece in pieces:
        sound = _SHA256.fullmatch(piece.sha256) and type(piece.size) is int and 0 < piece.size <= MAX_PIECE
        if not sound or not (piece.tensor is None or (isinstance(piece.tensor, str) and piece.tensor.isprintable())):
            raise ValueError("it lists an impossible piece")
    if sum(piece.size for piece in pieces) != size:
        raise ValueError("its pieces are not as long as the file")
    return pieces


@dataclass(frozen=True)
class Answer:
    """What a model answered, by digests: the archive holds no texts."""

    prompt_sha256: str
    answer_sha256: str
    runtime: str
    version: str
    """Of the runtime; another one may round otherwise."""
    recorded_at: str
    """UTC, ISO 8601."""


def answers_record(answers: list[Answer]) -> bytes:
    """Answers as JSON."""
    return json.dumps({"schema": ANSWERS_SCHEMA, "answers": [asdict(one) for one in answers]}, indent=1).encode()


def read_answers_record(data: bytes) -> list[Answer]:
    """Answers that were recorded.

    Raises:
        ValueError: This is no such record.
    """
    found: Any = parse_json(data)
    try:
        if found["schema"] != ANSWERS_SCHEMA:
            raise ValueError("another schema")
        answers = [Answer(**{key: str(value) for key, value in one.items()}) for one in found["answers"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is no record of answers") from error
    if any(not _SHA256.fullmatch(digest) for one in answers for digest in (one.prompt_sha256, one.answer_sha256)):
        raise ValueError("a digest in it is none")
    return answers
