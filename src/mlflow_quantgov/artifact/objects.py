"""Write a loaded model object by its own save method, without importing the library that it comes from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
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


_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
_FOLDER_FIX = 'save it to a folder first, then mlflow_quantgov.log_model("path/to/folder", ...)'


def save_object(model: Any, folder: Path) -> None:
    """Save a loaded model into a folder, with its tokenizer where it can be found.

    Args:
        model: A transformers, GPTQModel, AutoGPTQ, AutoAWQ or optimum (ORTModel) object; a transformers pipeline; or
            `{"model": ..., "tokenizer": ...}`, as for MLflow's transformers flavor.
        folder: Existing folder to write into.

    Raises:
        UsageError: The object is of no known library, or its library refuses to save it.
    """
    core, tokenizer = _parts(model)
    library = library_of(core)
    if library is None:
        raise UsageError(
            f"An object of type {type(core).__module__}.{type(core).__qualname__} cannot be logged.",
            why="Only transformers, GPTQModel, AutoGPTQ, AutoAWQ and optimum objects know how to save themselves.",
            fix=_FOLDER_FIX,
        )
    method = next((getattr(core, name) for name in _SAVERS[library] if hasattr(core, name)), None)
    if method is None:
        raise UsageError(
            f"The {library} object has none of the methods {', '.join(_SAVERS[library])}.",
            why="Its files are written by its own library, so that the bytes are those it would serve.",
            fix=_FOLDER_FIX,
        )
    try:
        method(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
        else:
            _copy_tokenizer(core, folder)
    except Exception as error:
        raise UsageError(
            f"{library} could not save the model: {error}", why="Nothing was logged.", fix=_FOLDER_FIX
        ) from error


def library_of(model: Any) -> str | None:
    """Name of the known library whose class (or base class) the object is an instance of."""
    for cls in type(model).__mro__:
        library = cls.__module__.split(".")[0]
        if library in _SAVERS:
            return library
    return None


def _parts(model: Any) -> tuple[Any, Any]:
    """The model itself, and its tokenizer where the object carries one."""
    if isinstance(model, Mapping):
        if "model" not in model:
            raise UsageError(
                "The dictionary holds no 'model'.",
                why="There is nothing to log.",
                fix='{"model": ..., "tokenizer": ...}',
            )
        return model["model"], model.get("tokenizer")
    if library_of(model) == "transformers" and not hasattr(model, "save_quantized") and hasattr(model, "preprocess"):
        return model.model, model.tokenizer  # a pipeline
    return model, getattr(model, "tokenizer", None)


def _copy_tokenizer(model: Any, folder: Path) -> None:
    """Tokenizer files of the folder that the model was loaded from: without them nothing can ask it anything."""
    origin = Path(str(getattr(model, "name_or_path", "") or "."))
    if any((folder / name).exists() for name in _TOKENIZER_FILES) or not (origin / "config.json").is_file():
        return
    for name in _TOKENIZER_FILES:
        if (origin / name).is_file():
            shutil.copy2(origin / name, folder / name)
