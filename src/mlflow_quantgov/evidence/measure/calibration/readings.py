"""One side's documents run through the parent, in pieces that are kept: a run that was killed goes on after the last one.

What is kept holds no text: pooled statistics of each document, and the input vectors of a few of its tokens.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.transformers_observer import FEATURES, Observer
from mlflow_quantgov.evidence.measure.cache import appearing, key_of

LAYOUT = 1
"""Raised whenever what is kept, or how a document is run, changes."""
PIECE = 16
"""Documents that are kept together."""
_VECTORS = 2
"""Tokens of a document whose input vectors are kept, where they are not too wide."""
_BUDGET = 1 << 27
"""Bytes that the vectors of `_DOCUMENTS` documents may take; of wider models fewer are kept."""
_DOCUMENTS = 200
_CHARACTERS = 32
"""Per token, beyond which a text is not tokenized."""


@dataclass(frozen=True)
class Piece:
    """Some documents and the file that holds what their run gave."""

    documents: tuple[str, ...]
    path: Path

    def kept(self) -> bool:
        """Whether it was run before, whole."""
        try:
            with np.load(self.path) as file:
                return int(file["layout"]) == LAYOUT
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False


@dataclass(frozen=True)
class Readings:
    """One side, as the parent's layers read it."""

    features: NDArray[np.float32]
    """Shape [documents, inputs, FEATURES]; documents of fewer than two tokens are left out."""
    tokens: int
    layers: dict[str, int]
    """Layer name to the number of the input that it reads, in the order in which layers run."""
    library: str
    files: tuple[Path, ...]

    def vectors(self, index: int) -> NDArray[np.float32]:
        """Input vectors of a few tokens of each document, shape [tokens, width]."""
        parts = []
        for path in self.files:
            with np.load(path) as file:
                parts.append(file[f"vectors_{index}"].astype(np.float32) * file[f"scales_{index}"][:, None])
        return np.concatenate(parts)


def pieces_of(documents: Sequence[str], folder: Path, identity: Sequence[Any]) -> list[Piece]:
    """Cut a side into pieces.

    Args:
        documents: Different documents.
        folder: Where pieces are kept.
        identity: Whatever decides a reading but the documents, in JSON types.
    """
    found = []
    for start in range(0, len(documents), PIECE):
        part = tuple(documents[start : start + PIECE])
        digests = [hashlib.sha256(one.encode("utf-8", "replace")).hexdigest() for one in part]
        found.append(Piece(part, folder / f"{key_of([LAYOUT, FEATURES, *identity, digests])}.npz"))
    return found


def encode(observer: Observer, piece: Piece, most: int) -> list[list[int]]:
    """Token ids of each document of a piece."""
    return [observer.encode(one[: _CHARACTERS * most], most) for one in piece.documents]


def run(observer: Observer, piece: Piece, most: int) -> None:
    """Run a piece and keep it; its file appears whole or not at all.

    Raises:
        EvidenceError: A layer reads NaN or infinite numbers.
    """
    features: list[NDArray[np.float32]] = []
    vectors: list[list[NDArray[np.float32]]] = [[] for _ in range(observer.inputs)]
    total = 0
    for text, tokens in zip(piece.documents, encode(observer, piece, most), strict=True):
        if len(tokens) < 2:
            continue
        reading = observer.read(tokens, _positions(text, len(tokens), sum(observer.widths)))
        features.append(reading.features)
        total += len(tokens)
        for kept, one in zip(vectors, reading.vectors, strict=True):
            kept.append(one)
    shape = (len(features), observer.inputs, FEATURES)
    arrays: dict[str, Any] = {
        "layout": np.array(LAYOUT),
        "features": np.array(features, dtype=np.float32).reshape(shape),
        "tokens": np.array(total),
        "layers": np.array(list(observer.layers)),
        "inputs": np.array(list(observer.layers.values())),
        "library": np.array(observer.library()),
    }
    for index, kept in enumerate(vectors):
        rows = np.concatenate(kept) if kept else np.zeros((0, observer.widths[index]), dtype=np.float32)
        # Halves hold eleven bits of each number and no large ones: the size of a vector is kept beside it.
        scales = np.abs(rows).max(axis=1, initial=1e-30)
        arrays |= {f"vectors_{index}": (rows / scales[:, None]).astype(np.float16), f"scales_{index}": scales}
    with appearing(piece.path) as scratch, scratch.open("wb") as file:
        np.savez(file, **arrays)


def gather(pieces: Sequence[Piece]) -> Readings:
    """What all pieces of a side hold together; each was run."""
    features, tokens = [], 0
    for piece in pieces:
        with np.load(piece.path) as file:
            features.append(file["features"])
            tokens += int(file["tokens"])
            layers = dict(zip(file["layers"].tolist(), file["inputs"].tolist(), strict=True))
            library = str(file["library"])
    return Readings(np.concatenate(features), tokens, layers, library, tuple(one.path for one in pieces))


def _positions(text: str, tokens: int, width: int) -> list[int]:
    """Positions whose vectors are kept: drawn by the document's digest, the same ones each time, never the first."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    affordable = _BUDGET / (2 * width * _DOCUMENTS)
    generator = np.random.default_rng(list(digest))
    wanted = min(_VECTORS, int(affordable)) if affordable >= 1 else int(generator.random() < affordable)
    return sorted(generator.choice(np.arange(1, tokens), size=min(wanted, tokens - 1), replace=False).tolist())
