"""One small tree of errors: every message says what happened, why it matters, and how to mend it."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import unicodedata
from pathlib import Path
from types import ModuleType
from typing import ClassVar

_LONGEST_WORD = 300


def _readable(text: str) -> str:
    """Words with single spaces; one that no line holds is cut."""
    words = visible(text).split()
    return " ".join(one if len(one) <= _LONGEST_WORD else short(one, quoted=False) for one in words)


def short(value: object, most: int = 100, *, quoted: bool = True) -> str:
    """A value of somebody's in an error: as Python writes it, cut where it is long.

    Args:
        value: What was given.
        most: Characters that are kept.
        quoted: Whether text stands in quotes.
    """
    text = repr(value) if quoted else str(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
"""Format characters that only join letters and emoji, and that languages need."""


def visible(text: str, keep: str = "\n\t") -> str:
    """Text in which whatever steers a terminal or the direction of writing stands as an escape that is seen.

    Args:
        text: Somebody's words.
        keep: Characters of that kind to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in _STEERING and sign not in keep and sign not in _JOINERS
        else sign
        for sign in text
    )


def pasted(text: str) -> str:
    """Somebody's name as one word of a command: whoever pastes the command runs nothing that the name says."""
    return shlex.quote(visible(text, keep=""))


def one_line(text: str) -> str:
    """Somebody else's words without line ends and characters that steer a terminal."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())


class QuantgovError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        what: What happened, one sentence.
        why: Why it matters to the person who reads it, one sentence (may be empty).
        fix: A command to paste or an action to take.
        exit_code: What the `quantgov` command exits with.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        """Keep the three parts apart, so that `--json` can print them apart."""
        self.what = _readable(what)
        self.why = _readable(why)
        self.fix = visible(fix.strip())
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The whole message as one line: what, why, `Fix: ...`."""
        parts = [self.what, self.why, f"Fix: {self.fix}" if self.fix else ""]
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, str]:
        """The three parts as the JSON contract names them."""
        return {"message": self.what, "why": self.why, "fix": self.fix}


class UsageError(QuantgovError):
    """The request itself is wrong: an unknown name, a missing argument, an impossible value."""


def no_such_file(path: Path, why: str) -> UsageError:
    """The error for a path at which no file can be read: nothing is there, or something else."""
    if path.is_dir():
        return UsageError(f"{path} is a folder.", why=why, fix=f"name a file in it: ls -l {path}")
    if path.exists():
        return UsageError(f"{path} is no ordinary file.", why=why, fix=f"name another: ls -ld {path}")
    folder = nearest_folder(path)
    readable = folder == path.parent and os.access(folder, os.R_OK)
    names = [one.name for one in folder.iterdir()] if readable else []
    near = difflib.get_close_matches(path.name, names, n=1)
    found = f"did you mean {folder / near[0]}? All that is there: " if near else "name a file that is there: "
    return UsageError(f"{path} does not exist.", why=why, fix=f"{found}ls -l {folder}")


def nearest_folder(path: Path) -> Path:
    """The deepest folder on the way to a path that is there."""
    return next((one for one in path.parents if one.is_dir()), Path())


class ArtifactError(QuantgovError):
    """A model file cannot be read, contradicts itself, or is of a kind that is not accepted."""


class UnknownFormatError(ArtifactError):
    """The folder holds a model in a format that no reader knows."""


class LineageError(QuantgovError):
    """A quantized model does not fit the parent that it names."""


class EvidenceError(QuantgovError):
    """A statement is malformed, about other bytes, or says what its own records do not give."""


class PolicyError(QuantgovError):
    """A file that says what is demanded or who is believed (policy, target, trusted keys) is wrong."""


class UnreachableError(QuantgovError):
    """A server or store cannot be reached, or is not gated where it has to be."""


class TamperingError(QuantgovError):
    """Something that must not change has changed."""

    exit_code = 4


_SILENT = ("Max retries exceeded", "Failed to establish a new connection", "Connection refused", "NameResolutionError")


def is_silence(error: Exception) -> bool:
    """Whether an error, whoever raised it, says that nobody listens at an address."""
    return any(words in str(error) for words in _SILENT)


def no_answer(where: str, how: str = "") -> UnreachableError:
    """The error for a server that does not answer.

    Args:
        where: Its address.
        how: What was tried and seen, in a word.
    """
    return UnreachableError(
        f"The server {where} does not answer{f' ({how})' if how else ''}.",
        why="Nothing was changed.",
        fix="start it with `quantgov server`, or set MLFLOW_TRACKING_URI to the one that runs",
    )


class MissingExtraError(QuantgovError):
    """A library that belongs to an optional extra is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        """Name the extra to install."""
        super().__init__(
            f"The library {library!r} is not installed.",
            why=f"It is needed to {purpose}.",
            fix=f"pip install 'mlflow-quantgov[{extra}]'",
        )


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional library, or say which extra brings it.

    Args:
        module: Dotted name of the module to import.
        extra: The extra of this package that installs it.
        purpose: What it is needed for, completing "It is needed to ...".

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(module.split(".")[0], extra, purpose) from error
