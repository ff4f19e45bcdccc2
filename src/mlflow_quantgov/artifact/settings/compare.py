"""Where two sides say something else of their computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_quantgov.artifact.settings.rope import attention_factor
from mlflow_quantgov.artifact.settings.words import Settings, agree


def differences(child: Settings, parent: Settings) -> list[tuple[str, Any, Any]]:
    """Keys that do not agree, with both values; None for what is not there.

    Args:
        child: Of the quantized model.
        parent: Of its parent.
    """
    if child.kind == parent.kind != "graph":
        mine, theirs = child.values, parent.values
        keys = sorted(mine.keys() | theirs.keys())
        both = ((key, mine.get(key), theirs.get(key)) for key in keys)
        # What one version of a converter writes and another does not is the same where it follows from the rest.
        return [
            one
            for one in both
            if not (agree(*one[1:]) or (child.kind == "gguf" and one[0][-1:] == "?" and None in one))
        ]
    few, many = (parent, child) if child.kind == "config" else (child, parent)
    if "none" in (few.kind, many.kind) or many.kind == "gguf" or (few.kind == "gguf" and many.kind == "graph"):
        return []
    if few.kind == "gguf":
        theirs = {**many.values, "rope.attention_factor": attention_factor(many.values)}
        told = [_of_names(names, few.values[names], theirs) for names in sorted(few.values)]
    else:
        told = [_of_names(f"{name}?", few.values[name], many.values) for name in sorted(few.values)]
    found = [one for one in told if one is not None]
    return found if few is child else [(name, theirs, mine) for name, mine, theirs in found]


def _of_names(names: str, value: Any, theirs: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """A setting that a config may call this or that; with a question mark one that it may lack."""
    known = [name.rstrip("?") for name in names.split("|")]
    name = next((one for one in known if one in theirs), None)
    if name is None:
        return None if names.endswith("?") else (known[0], value, None)
    return None if agree(value, theirs[name]) else (name, value, theirs[name])
