"""Where llama.cpp's shared object lies: in PyPI's `xllamacpp`, or in `llama-cpp-python`, whichever is installed.

`QUANTGOV_LLAMA_LIBRARY` names one of them where both are; without it, `xllamacpp` comes first.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import ArtifactError, MissingExtraError, UsageError, require

VARIABLE = "QUANTGOV_LLAMA_LIBRARY"
MODEL, CONTEXT = "llama_model_params", "llama_context_params"


@dataclass(frozen=True)
class Library:
    """One installed distribution that carries llama.cpp."""

    distribution: str
    """As PyPI spells it."""
    version: str
    path: Path
    """The shared object that exports `llama_*`; `ggml_*` is found through it."""
    offsets: Mapping[str, Mapping[str, int]]
    """Struct to field to its offset, where the distribution declares them itself; empty where it does not."""
    fix: str
    """How to install a release whose layout is known."""


def _xllamacpp() -> Library:
    module = require("xllamacpp", extra="gguf", purpose="run GGUF models in llama.cpp")
    path = getattr(getattr(module, "xllamacpp", None), "__file__", None)
    version = importlib.metadata.version("xllamacpp")
    return Library("xllamacpp", version, Path(path or ""), {}, "pip install 'xllamacpp==2026.10.11549'")


def _llama_cpp_python() -> Library:
    """Its Python definitions of the structs are those that its own library was built with."""
    fix = "pip install 'llama-cpp-python==0.3.36'"
    version = importlib.metadata.version("llama-cpp-python")
    try:
        module = require("llama_cpp.llama_cpp", extra="gguf", purpose="run GGUF models in llama.cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ArtifactError(
            f"llama-cpp-python {version} is installed but does not load: {str(error)[:200]}.",
            why="Its library runs the model.",
            fix=f"{fix}, or pip install 'mlflow-quantgov[gguf]'",
        ) from error
    path = getattr(getattr(module, "_lib", None), "_name", None)
    offsets = {name: _offsets(getattr(module, name, None)) for name in (MODEL, CONTEXT)}
    return Library("llama-cpp-python", version, Path(path or ""), offsets, fix)


def _offsets(struct: Any) -> dict[str, int]:
    """Offset of every field of a ctypes structure."""
    return {field[0]: int(getattr(struct, field[0]).offset) for field in getattr(struct, "_fields_", ())}


# Distribution -> module that it installs, and how it is found.
_KNOWN: dict[str, tuple[str, Callable[[], Library]]] = {
    "xllamacpp": ("xllamacpp", _xllamacpp),
    "llama-cpp-python": ("llama_cpp", _llama_cpp_python),
}


def chosen() -> str:
    """The distribution whose library is used: the one that the variable names, else the first that is installed.

    Raises:
        UsageError: The variable names something else.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return next((name for name in _KNOWN if is_installed(name)), "xllamacpp")
    if named not in _KNOWN:
        raise UsageError(
            f"{VARIABLE} is {named!r}.",
            why="It names the package whose llama.cpp runs GGUF models.",
            fix=f"set it to {' or '.join(_KNOWN)}, or unset it",
        )
    return named


def module() -> str:
    """The module that it installs.

    Raises:
        UsageError: The variable names something else.
    """
    return _KNOWN[chosen()][0]


def is_installed(distribution: str) -> bool:
    """Whether a distribution's module is there; nothing is imported."""
    return importlib.util.find_spec(_KNOWN[distribution][0]) is not None


def reason_missing() -> str | None:
    """Why there is no llama.cpp here; None where there is."""
    name = chosen()
    if is_installed(name):
        return None
    how = "pip install 'mlflow-quantgov[gguf]'" if name == "xllamacpp" else f"pip install {name}"
    return f"{name} is not installed ({how})"


def find_library() -> Library:
    """The library that is used.

    Raises:
        MissingExtraError: Neither distribution is installed, or not the one that was asked for.
        ArtifactError: It is installed and broken.
        UsageError: The variable names something else.
    """
    name = chosen()
    module, find = _KNOWN[name]
    if not is_installed(name):
        raise MissingExtraError(module, "gguf", "run GGUF models in llama.cpp")
    return find()
