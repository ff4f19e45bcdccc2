"""Which documents of a file are compared, and how much of the file they stand for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlflow_quantgov.evidence.calibration_words import MOST_CHARACTERS

MAX_DOCUMENTS = 2_000
"""Documents of one side that are compared; chosen by digest, so the same ones each time."""


def sample(documents: Sequence[str]) -> list[str]:
    """At most `MAX_DOCUMENTS` different documents, ordered and chosen by digest: order and copies change nothing.

    The digest is of a document and of all documents of its side. By its own digest alone, documents that are to be
    compared could be made: a space here and there, until it is small enough.
    """
    keyed = {hashlib.sha256(document.encode("utf-8", "replace")).digest(): document for document in documents}
    side = hashlib.sha256(b"".join(sorted(keyed))).digest()
    ordered = sorted(keyed, key=lambda digest: hashlib.sha256(side + digest).digest())
    return [keyed[digest] for digest in ordered[:MAX_DOCUMENTS]]


def unrepresented(documents: Sequence[str]) -> float:
    """Share of a file's text that the compared documents do not stand for.

    Each different document is compared once and by its beginning. What the quantizer sees is the file: every copy, to the
    end. This is the total variation distance between both, each document weighing as much as it has characters; a file
    in which every document stands twice is represented in full.

    Args:
        documents: At least one that is not empty.
    """
    copies = Counter(documents)
    lengths = np.array([len(one) for one in copies], dtype=np.float64)
    whole = lengths * np.array(list(copies.values()), dtype=np.float64)
    seen = np.minimum(lengths, MOST_CHARACTERS)
    return round(float(np.abs(whole / whole.sum() - seen / seen.sum()).sum()) / 2, 6)
