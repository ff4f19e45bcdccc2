"""What every lossless twin of a parent is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def source_digest(folder: Path, recipe: str, names: Sequence[str]) -> str:
    """sha256 (hex) over the files that a twin is made from, and over its recipe.

    Args:
        folder: The parent.
        recipe: Name and version of the way in which the twin is made.
        names: Files that it is made from, beside the weights; those that are not there are left out.
    """
    digest = hashlib.sha256(recipe.encode())
    for path in [*(folder / name for name in names), *sorted(folder.glob("*.safetensors"))]:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
