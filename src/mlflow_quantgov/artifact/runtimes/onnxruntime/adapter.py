"""Opens ONNX decoders, and full-precision folders through an fp32 twin, in onnxruntime."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Configuration, Prepared, RuntimeAdapter
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE, read_onnx_folder
from mlflow_quantgov.artifact.runtimes.onnxruntime.runtime import NAME, OnnxRuntime
from mlflow_quantgov.artifact.runtimes.onnxruntime.settings import OnnxSettings, read_settings
from mlflow_quantgov.artifact.runtimes.onnxruntime.twin import onnx_twin, reason_no_twin
from mlflow_quantgov.artifact.runtimes.onnxruntime.twin_proof import OnnxTwin
from mlflow_quantgov.errors import ArtifactError, require

_ALWAYS = ("onnxruntime", "onnx", "tokenizers")
_BUILDER = ("onnxruntime_genai", "onnx_ir", "torch", "transformers")
"""What making a twin needs."""


class OnnxRuntimeAdapter(RuntimeAdapter):
    """onnxruntime on this machine's CPU, with onnxruntime-genai where the folder was made for it."""

    name = NAME
    takes_threads = True

    def reason_not_loadable(self, path: Path) -> str | None:
        """None for an ONNX decoder with a tokenizer.json, or a folder that an fp32 twin can stand in for."""
        missing = _missing(_ALWAYS)
        if missing:
            return f"{missing} is not installed (pip install 'mlflow-quantgov[onnx]')"
        if not path.exists():
            return f"{path} does not exist"
        if not _is_onnx(path):
            reason = reason_no_twin(path) if path.is_dir() else f"{path.name} is no .onnx file"
            missing = _missing(_BUILDER)
            if reason is None and missing:
                return f"{missing} is not installed, which making its ONNX twin needs"
            return reason
        try:
            folder = read_onnx_folder(path)
        except ArtifactError as error:
            return error.what
        if folder.is_genai and _missing(("onnxruntime_genai",)):
            return "onnxruntime_genai is not installed (pip install 'mlflow-quantgov[onnx]')"
        return None

    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> OnnxRuntime:
        """Load an artifact.

        Args:
            path: A folder for onnxruntime-genai, a plain export with its tokenizer.json, its `.onnx` file, or a
                full-precision folder.
            cache: Folder in which a twin is kept; where None it is removed once loaded.
            **settings: Fields of `OnnxSettings`.

        Raises:
            MissingExtraError: A library is not installed.
            ArtifactError: The files do not load.
            UsageError: A setting is unknown or out of range.
        """
        chosen = read_settings(settings)
        for module in _ALWAYS:
            require(module, extra="onnx", purpose=PURPOSE)
        reason = self.reason_not_loadable(path)
        if reason is not None:
            raise ArtifactError(
                f"onnxruntime cannot load {path.name}: {reason}.",
                why="What does not load cannot be measured.",
                fix=f"quantgov inspect {path}",
            )
        if _is_onnx(path):
            return OnnxRuntime(path, chosen)
        if cache is not None:
            return self._open_twin(path, cache, chosen)
        with tempfile.TemporaryDirectory(prefix="quantgov-twin-") as folder:
            return self._open_twin(path, Path(folder), chosen)

    @staticmethod
    def _open_twin(path: Path, cache: Path, settings: OnnxSettings) -> OnnxRuntime:
        twin = onnx_twin(path, cache)
        return OnnxRuntime(twin.path, settings, twin=twin.kind, notes=_notes(twin))

    def load_libraries(self, path: Path) -> None:
        """Import onnxruntime and what reads a graph, with onnxruntime-genai where it is installed."""
        for module in (*_ALWAYS, "onnxruntime_genai"):
            if module in _ALWAYS or not _missing((module,)):
                require(module, extra="onnx", purpose=PURPOSE)

    def configurations(self, path: Path) -> list[Configuration]:
        """The graph as it is, or the fp32 twin: on the CPU, onnxruntime multiplies in float32 alone."""
        return [Configuration("as stored" if _is_onnx(path) else "F32 twin")]

    def prepare(self, path: Path, configuration: Configuration, cache: Path) -> Prepared:
        """Build the twin, and compare it with its source."""
        if _is_onnx(path):
            return Prepared(path, configuration.settings)
        twin = onnx_twin(path, cache)
        return Prepared(twin.path, configuration.settings, twin.kind, _notes(twin))


def _notes(twin: OnnxTwin) -> dict[str, Any]:
    notes: dict[str, Any] = {"twin_dtype": "F32", "twin_tensors_equal": twin.tensors}
    if twin.differing:
        notes["twin_tensors_equal"] -= len(twin.differing)
        notes["twin_differs_in"] = ", ".join(twin.differing[:5])
    return notes


def _is_onnx(path: Path) -> bool:
    """Whether an artifact holds a graph of its own."""
    return any(path.glob("*.onnx")) if path.is_dir() else path.suffix == ".onnx"


def _missing(modules: tuple[str, ...]) -> str | None:
    """The first module that is not installed."""
    return next((module for module in modules if importlib.util.find_spec(module) is None), None)
