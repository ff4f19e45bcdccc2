"""Finds a runtime by name, or the first that can load an artifact here.

Third parties add theirs through the entry-point group `mlflow_quantgov.runtimes`: each entry names a `RuntimeAdapter`
class.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path

from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter
from mlflow_quantgov.errors import ArtifactError, UsageError

ENTRY_POINTS = "mlflow_quantgov.runtimes"
_OWN = {
    "llama.cpp": "mlflow_quantgov.artifact.runtimes.llama_cpp:LlamaCppAdapter",
    "transformers": "mlflow_quantgov.artifact.runtimes.transformers_runtime:TransformersAdapter",
    "onnxruntime": "mlflow_quantgov.artifact.runtimes.onnxruntime:OnnxRuntimeAdapter",
    "openai": "mlflow_quantgov.artifact.runtimes.endpoint:EndpointAdapter",
}
"""Name, as targets spell it, to class; in the order in which they are tried."""


def runtime_names() -> list[str]:
    """Names of all runtimes, our own first, in the order in which they are tried."""
    return list(_references())


def find_runtime(name: str) -> RuntimeAdapter:
    """The adapter of one runtime.

    Args:
        name: As targets spell it: `llama.cpp`, `transformers`, `onnxruntime`, `openai`, or a third party's.

    Raises:
        UsageError: No runtime has that name, or its entry point does not load.
    """
    references = _references()
    if name not in references:
        raise UsageError(
            f"No adapter of the runtime {name!r} is installed here.",
            why="A measurement is made in the runtime that it names, and in no other.",
            fix=f"choose one of {', '.join(references)} with `--runtime`, or install a plugin of the group {ENTRY_POINTS}",
        )
    module, _, attribute = references[name].partition(":")
    try:
        adapter = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(
            f"The runtime {name!r} ({references[name]}) does not load: {error}.",
            why="Nothing can be measured in it.",
            fix="reinstall the package that brings it",
        ) from error
    if not isinstance(adapter, RuntimeAdapter):
        raise UsageError(
            f"The runtime {name!r} ({references[name]}) is no RuntimeAdapter.",
            why="Nothing can be measured in it.",
            fix="derive its class from mlflow_quantgov.artifact.runtimes.interface.RuntimeAdapter",
        )
    return adapter


def runtime_for(path: Path, preferred: str | None = None) -> RuntimeAdapter:
    """The runtime to load an artifact in.

    Args:
        path: Model folder or file.
        preferred: The only runtime to consider (a target's), where given.

    Raises:
        ArtifactError: None can load it; the message lists every reason.
        UsageError: The preferred runtime does not exist.
    """
    reasons: list[str] = []
    for name in [preferred] if preferred else runtime_names():
        try:
            adapter = find_runtime(name)
            reason = adapter.reason_not_loadable(path)
        except UsageError as error:
            if preferred:
                raise
            reason = error.what
        if reason is None:
            return adapter
        reasons.append(f"{name}: {reason}")
    raise ArtifactError(
        f"No runtime here can load {path.name}. {'; '.join(reasons)}.",
        why="A model that no runtime loads cannot be measured or served here.",
        fix="pip install 'mlflow-quantgov[gguf,transformers,onnx]', or choose a format that one of them loads",
    )


def _references() -> dict[str, str]:
    """Name to `module:class`; a third party cannot take one of our own names."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return _OWN | {entry.name: entry.value for entry in found if entry.name not in _OWN}
