"""Words that try to be markup, a command of a terminal, another line, another direction, or a formula."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_quantgov.gate.registry_store import open_store

SKILLS = Path(__file__).parents[2] / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"

SCRIPT = "<script>window.ran=1</script><img src=x onerror='window.ran=1'>"
TEXTS = (
    SCRIPT,
    "\"'><svg onload=window.ran=1>",
    "{{ 7*7 }}{% raw %}${7*7}",
    "`id` $(id) | [a](javascript:window.ran=1) ![x](http://127.0.0.1:9/x)",
    "two\nlines\r\nquantgov allowed chat version 1",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "right \u202eto left\u2066 \u200f\ufeff",
    "=1+1;@SUM(A1)",
    "x" * 5000,
    "é" * 300 + "\U0001f600",
)


def gated_store(uri: str, folder: Path) -> Iterator[Any]:
    """A gated store with one model, refused once."""
    found: Any = open_store(f"quantgov:{uri}")
    shutil.copytree(SKILLS, folder / "logged" / "model")
    found.create_registered_model("chat")
    found.create_model_version("chat", str(folder / "logged"), description=SCRIPT)
    with pytest.raises(MlflowException):
        found.set_registered_model_alias("chat", "champion", "1")
    yield found
    # MLflow keeps an engine, with its connections, for every address; a server has a hundred of them.
    if (engine := SqlAlchemyStore._engine_map.pop(uri, None)) is not None:
        engine.dispose()
