"""Which documents of a file are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MAX_DOCUMENTS = 2_000
"""Documents of one side that are compared; chosen by digest, so the same ones each time."""


def sample(documents: Sequence[str]) -> list[str]:
    """At most `MAX_DOCUMENTS` different documents, ordered and chosen by their digest: order and copies change nothing."""
    keyed = {hashlib.sha256(document.encode("utf-8", "replace")).digest(): document for document in documents}
    return [keyed[key] for key in sorted(keyed)[:MAX_DOCUMENTS]]
