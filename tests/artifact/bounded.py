"""Reading hostile bytes: an answer or one clear error, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from mlflow_quantgov.errors import ArtifactError

LIMIT = 64 * 1024 * 1024


def accepts(read: Callable[[], object]) -> bool:
    """Whether something is read; anything but an ArtifactError fails the test, and so does much memory."""
    tracemalloc.start()
    try:
        read()
    except ArtifactError as error:
        assert error.fix and "\n" not in error.one_line()
        return False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LIMIT
    return True
