"""Documents of a text or JSONL file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, no_such_file

MAX_BYTES = 256 * 1024 * 1024


def read_documents(path: Path, *, keep_empty: bool = False) -> list[str]:
    """Texts of a JSONL file with `text` or `messages`, or the paragraphs of a plain text file.

    Args:
        path: The file; the name of a JSONL file ends in .jsonl or .json.
        keep_empty: Keep records without any text, for whoever judges the file itself.

    Raises:
        UsageError: The file does not exist, is too large, is not text, or holds no documents.
    """
    if not path.is_file():
        raise no_such_file(path, "There is no text to measure on.")
    if path.stat().st_size > MAX_BYTES:
        raise _bad(path, f"it is larger than {MAX_BYTES // 2**20} MB")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _bad(path, "it is not UTF-8 text") from error
    if path.suffix in {".jsonl", ".json"}:
        # Not `splitlines`: a text may hold U+2028 and its like unescaped.
        documents = [_document(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        documents = [part for part in (part.strip() for part in text.split("\n\n")) if part]
    filled = [one for one in documents if one.strip()]
    if not filled:
        raise _bad(path, "it holds no documents")
    return documents if keep_empty else filled


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
        raise _bad(path, f"line {number} is not JSON with `text` or `messages`") from error
    return found.encode("utf-8", "replace").decode("utf-8")  # JSON can spell half a character


def _words(content: Any) -> str:
    """Text of a message, whose content may come in parts of which some are pictures."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return str(content or "")


def _bad(path: Path, problem: str) -> UsageError:
    return UsageError(
        f"{path.name}: {problem}.",
        why="Nothing was measured.",
        fix='write one document per line, such as {"text": "..."}',
    )
