"""Finds a runtime by name, or the first that can load an artifact here.

Third parties add theirs through the entry-point group `mlflow_quantgov.runtimes`: each entry names a `RuntimeAdapter`
class.
"""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.artifact.plugins import Plugins
from mlflow_quantgov.artifact.runtimes.interface import RuntimeAdapter
from mlflow_quantgov.errors import ArtifactError, UsageError

_HERE = "mlflow_quantgov.artifact.runtimes"
_RUNTIMES = Plugins[RuntimeAdapter](
    kind="runtime",
    base=RuntimeAdapter,  # type: ignore[type-abstract]  # compared with, never built
    group="mlflow_quantgov.runtimes",
    own={
        "llama.cpp": f"{_HERE}.llama_cpp:LlamaCppAdapter",
        "transformers": f"{_HERE}.transformers_runtime:TransformersAdapter",
        "onnxruntime": f"{_HERE}.onnxruntime:OnnxRuntimeAdapter",
        "openai": f"{_HERE}.endpoint:EndpointAdapter",
    },
    without="A measurement is made in the runtime that it names, and in no other.",
)


def runtime_names() -> list[str]:
    """Names of all runtimes, our own first, in the order in which they are tried."""
    return _RUNTIMES.names()


def find_runtime(name: str) -> RuntimeAdapter:
    """The adapter of one runtime.

    Args:
        name: As targets spell it: `llama.cpp`, `transformers`, `onnxruntime`, `openai`, or a third party's.

    Raises:
        UsageError: No runtime has that name, or its entry point does not load.
    """
    return _RUNTIMES.find(name, "choose one of {names} with `--runtime`")


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
