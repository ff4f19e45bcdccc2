"""Below which path a server with `--static-prefix` is reached."""

from __future__ import annotations

import os

STATIC_PREFIX = "_MLFLOW_STATIC_PREFIX"
"""Variable in which MLflow keeps it."""


def static_prefix() -> str:
    """As `/team`; empty where there is none."""
    return os.environ.get(STATIC_PREFIX, "").rstrip("/")


def below(path: str) -> str:
    """A path of this server without the prefix: our routes stand there both ways."""
    prefix = static_prefix()
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
