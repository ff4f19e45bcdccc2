"""What a document is about, as a vector: the mean of its tokens' pretrained embeddings.

The embeddings are those that the package `wordllama` carries in its wheel (32,000 tokens, 256 numbers each, distilled from
the input embeddings of large language models), so nothing is downloaded and no text leaves the machine. Its two files are
read directly: its own loader asks a hub for the tokenizer that already lies beside it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.errors import MissingExtraError, require

LIBRARY = "wordllama"
DIMENSIONS = 256
MAX_CHARACTERS = 20_000
"""Characters of a document that are looked at."""
_BATCH = 64
_PURPOSE = "compare what calibration data and production are about"


def installed() -> bool:
    """Whether the embeddings are there."""
    try:
        _files()
    except MissingExtraError:
        return False
    return importlib.util.find_spec("tokenizers") is not None and importlib.util.find_spec("safetensors") is not None


def embed(documents: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of documents, shape [documents, DIMENSIONS]; zero for a document without a token.

    Raises:
        MissingExtraError: `wordllama` is not installed, or holds no embeddings.
    """
    tokenizer, table = _tables()
    found = np.zeros((len(documents), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(documents), _BATCH):
        texts = [document[:MAX_CHARACTERS] for document in documents[start : start + _BATCH]]
        for row, encoding in enumerate(tokenizer.encode_batch(texts, add_special_tokens=False), start):
            if encoding.ids:
                mean = table[encoding.ids].mean(axis=0, dtype=np.float32)
                found[row] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return found


@cache
def _tables() -> tuple[Any, NDArray[np.float16]]:
    tokenizers: Any = require("tokenizers", extra="calibration", purpose=_PURPOSE)
    safetensors: Any = require("safetensors.numpy", extra="calibration", purpose=_PURPOSE)
    vocabulary, weights = _files()
    tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, next(iter(safetensors.load_file(weights).values()))


def _files() -> tuple[Path, Path]:
    spec = importlib.util.find_spec(LIBRARY)
    folders = [Path(one) for one in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        vocabulary = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        weights = folder / "weights" / "l2_supercat_256.safetensors"
        if vocabulary.is_file() and weights.is_file():
            return vocabulary, weights
    raise MissingExtraError(LIBRARY, "calibration", _PURPOSE)
