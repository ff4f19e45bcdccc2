"""What the gate approved of a model that `mlflow.pyfunc` loads: MLflow tells a flavor the files, and not the URI."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml

_META = "registered_model_meta"
"""MLflow writes it beside a registered version's files when they are downloaded."""
_MOST_BYTES = 100_000


def approved_manifest(root: Path) -> str | None:
    """Manifest digest of the newest decision that let this version through; None where nobody can be asked.

    A copy of the files in a container has no registry behind it: there the manifest beside them is all there is.

    Args:
        root: Folder of the version, as it was downloaded.
    """
    path = root / _META
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        meta: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        name, version = meta["model_name"], meta["model_version"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(version, str | int):
        return None
    # Asked for by name: a flavor stands below the gate, and must load where no gate is.
    found = importlib.import_module("mlflow_quantgov.production.approval").decided_manifest(name, str(version))
    return str(found) if found is not None else None
