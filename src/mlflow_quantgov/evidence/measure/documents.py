"""Documents of a text or JSONL file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, no_such_file

MAX_BYTES = 256 * 1024 * 1024
MAX_DOCUMENTS = 1_000_000
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_documents(path: Path, *, keep_empty: bool = False) -> list[str]:
    """Texts of a JSONL file with `text` or `messages`, or the paragraphs of a plain text file.

    Args:
        path: The file; the name of a JSONL file ends in .jsonl or .json.
        keep_empty: Keep records without any text, for whoever judges the file itself.

    Raises:
        UsageError: The file does not exist, is too large, is not text, or holds no documents.
    """
    text = _text(path)
    if path.suffix in {".jsonl", ".json"}:
        # Not `splitlines`: a text may hold U+2028 and its like unescaped.
        documents = [_document(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        documents = [part for part in (part.strip() for part in text.split("\n\n")) if part]
    filled = [one for one in documents if one.strip()]
    if not filled:
        raise _bad(path, "it holds no documents")
    if len(documents) > MAX_DOCUMENTS:
        raise _bad(path, f"it holds more than {MAX_DOCUMENTS:,} documents", fix=f"shuf -n 10000 {path} > sample.jsonl")
    return documents if keep_empty else filled


def _text(path: Path) -> str:
    """The whole file as text, without the mark that some editors put in front.

    Raises:
        UsageError: It cannot be read, is too large, or is no UTF-8 text.
    """
    if not path.is_file():
        raise no_such_file(path, "There is no text to measure on.")
    if path.stat().st_size > MAX_BYTES:
        raise _bad(path, f"it is larger than {MAX_BYTES // 2**20} MB", fix=f"shuf -n 10000 {path} > sample.jsonl")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _bad(path, f"it cannot be read ({error.strerror})", fix=f"ls -l {path}") from error
    if data.startswith(_UTF16):
        raise _bad(path, "it is UTF-16, not UTF-8", fix=f"iconv -f UTF-16 -t UTF-8 {path} > utf8{path.suffix}")
    if b"\0" in data:
        raise _bad(path, "it is a binary file, no text")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _bad(path, f"it is not UTF-8 text (byte {error.start:,})") from error


def file_digest(path: Path) -> str:
    """`sha256:...` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _document(path: Path, number: int, line: str) -> str:
    try:
        record: Any = json.loads(line)
        if isinstance(record.get("text"), str):
            found = str(record["text"])
        else:
            found = "\n".join(_words(message["content"]) for message in record["messages"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = "is no JSON, or half of it" if isinstance(error, ValueError) else "has neither `text` nor `messages`"
        if line.strip() == "[":
            problem = "opens an array; every record needs a line of its own"
        raise _bad(path, f"line {number} {problem}") from error
    return found.encode("utf-8", "replace").decode("utf-8")  # JSON can spell half a character


def _words(content: Any) -> str:
    """Text of a message, whose content may come in parts of which some are pictures."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return str(content or "")


def _bad(path: Path, problem: str, *, fix: str = "") -> UsageError:
    return UsageError(
        f"{path.name}: {problem}.",
        why="Nothing was measured.",
        fix=fix or 'write one document per line, such as {"text": "..."}',
    )
