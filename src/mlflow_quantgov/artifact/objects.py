"""Write a loaded model object by its own save method, without importing the library that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError

# Library (first part of a class's module) -> methods to try, in order.
_SAVERS: dict[str, tuple[str, ...]] = {
    "transformers": ("save_pretrained",),
    "gptqmodel": ("save_quantized", "save", "save_pretrained"),
    "auto_gptq": ("save_quantized", "save_pretrained"),
    "awq": ("save_quantized",),
    "optimum": ("save_pretrained",),
    "peft": ("save_pretrained",),
}


def library_of(model: Any) -> str | None:
    """Name of the known library whose class (or base class) the object is an instance of."""
    for cls in type(model).__mro__:
        library = cls.__module__.split(".")[0]
        if library in _SAVERS:
            return library
    return None


def save_object(model: Any, folder: Path, *, tokenizer: Any = None) -> None:
    """Save a loaded model into a folder.

    Args:
        model: A transformers, GPTQModel, AutoGPTQ, AutoAWQ or optimum (ORTModel) object.
        folder: Existing folder to write into.
        tokenizer: Saved beside the model by its own `save_pretrained`, if given.

    Raises:
        UsageError: The object is of no known library, or its library refuses to save it.
    """
    library = library_of(model)
    if library is None:
        raise UsageError(
            f"An object of type {type(model).__module__}.{type(model).__qualname__} cannot be logged.",
            why="Only transformers, GPTQModel, AutoGPTQ, AutoAWQ and optimum objects know how to save themselves.",
            fix='save it to a folder first, then mlflow_quantgov.log_model("path/to/folder", ...)',
        )
    method = next((getattr(model, name) for name in _SAVERS[library] if hasattr(model, name)), None)
    if method is None:
        raise UsageError(
            f"The {library} object has none of the methods {', '.join(_SAVERS[library])}.",
            why="Its files are written by its own library, so that the bytes are those it would serve.",
            fix='save it to a folder first, then mlflow_quantgov.log_model("path/to/folder", ...)',
        )
    try:
        method(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    except Exception as error:
        raise UsageError(
            f"{library} could not save the model: {error}",
            why="Nothing was logged.",
            fix='save it to a folder first, then mlflow_quantgov.log_model("path/to/folder", ...)',
        ) from error
