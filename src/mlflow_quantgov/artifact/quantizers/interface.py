"""What a quantizer is: something with a version that makes files from a full-precision model, arguments and texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.errors import MissingExtraError, UsageError, short

Arguments = Mapping[str, type | tuple[type, ...]]
"""Name of an argument to its type."""


class Quantizer(ABC):
    """One quantizer. A third party's is a subclass without arguments, named in the group `mlflow_quantgov.quantizers`."""

    name: ClassVar[str]
    """As recipes spell it."""
    distribution: ClassVar[str]
    """Package whose version the recipe records."""
    extra: ClassVar[str]
    """Extra of this package that brings it, or words for what does."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Other packages whose version may change the bytes."""
    arguments: ClassVar[Arguments]
    """Every argument that it takes, with its type."""
    needs_texts: ClassVar[bool] = False
    """Whether it calibrates on texts."""

    def version(self) -> str:
        """Installed version.

        Raises:
            MissingExtraError: It is not installed.
        """
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError as error:
            raise MissingExtraError(self.distribution, self.extra, f"run the quantizer {self.name}") from error

    def check(self, arguments: Mapping[str, Any], *, has_texts: bool) -> None:
        """Refuse arguments that it does not take, before anything runs.

        Raises:
            UsageError: An unknown argument, one of another type, or calibration texts where none belong.
        """
        for key, value in arguments.items():
            if key not in self.arguments:
                raise self._wrong(f"it takes no argument {short(key)}")
            wanted = self.arguments[key]
            # bool is an int to Python, and no number to people.
            if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in _types(wanted)):
                raise self._wrong(f"{key} = {short(value)} is no {' or '.join(one.__name__ for one in _types(wanted))}")
        if has_texts != self.needs_texts:
            raise self._wrong("it calibrates on texts, and none are given" if self.needs_texts else "it sees no texts")

    @abstractmethod
    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Quantize.

        Args:
            parent: Folder or file of the full-precision model.
            target: Empty folder to write to.
            arguments: Checked ones.
            texts: Calibration texts; empty where it needs none.

        Returns:
            What was written: the folder, or the one file in it.
        """

    def _wrong(self, problem: str) -> UsageError:
        known = ", ".join(sorted(self.arguments))
        return UsageError(
            f"The recipe does not fit the quantizer {self.name}: {problem}.",
            why="A recipe that says something else than what was done cannot be run again.",
            fix=f"correct the recipe; {self.name} takes {known}"
            + (" and calibration: sha256:... of a file of texts" if self.needs_texts else ", and no calibration"),
        )


def _types(wanted: type | tuple[type, ...]) -> tuple[type, ...]:
    return wanted if isinstance(wanted, tuple) else (wanted,)
