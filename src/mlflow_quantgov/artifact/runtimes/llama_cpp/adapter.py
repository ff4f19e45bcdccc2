"""Opens GGUF files, and full-precision Llama folders through a lossless twin, in llama.cpp."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Configuration, Prepared, RuntimeAdapter
from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
from mlflow_quantgov.artifact.runtimes.llama_cpp.file_twin import file_twin, stored_tensors
from mlflow_quantgov.artifact.runtimes.llama_cpp.libraries import find_library, reason_missing
from mlflow_quantgov.artifact.runtimes.llama_cpp.runtime import NAME, LlamaRuntime, LlamaSettings
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import read_folder
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import Twin, TwinType, gguf_twin, matrix_types, reason_no_twin
from mlflow_quantgov.artifact.runtimes.lossless import configurations_by_type
from mlflow_quantgov.artifact.runtimes.settings import bad_setting
from mlflow_quantgov.artifact.runtimes.settings import read_settings as read_checked
from mlflow_quantgov.errors import ArtifactError, MissingExtraError

_TWIN_TYPES: tuple[TwinType, ...] = ("auto", "BF16", "F16", "F32")


class LlamaCppAdapter(RuntimeAdapter):
    """llama.cpp, as packed in `xllamacpp` or `llama-cpp-python`."""

    name = NAME
    takes_threads = True

    def reason_not_loadable(self, path: Path) -> str | None:
        """None for a .gguf file, a folder with exactly one, or a Llama folder that a lossless twin can stand in for."""
        if (missing := reason_missing()) is not None:
            return missing
        if not path.exists():
            return f"{path} does not exist"
        files = gguf_files(path)
        if len(files) > 1:
            return f"it holds {len(files)} .gguf files, and only one is a model"
        if files:
            with files[0].open("rb") as file:
                return None if file.read(4) == b"GGUF" else f"{files[0].name} is no GGUF file"
        return reason_no_twin(path) if path.is_dir() else f"{path.name} is no .gguf file"

    def open(self, path: Path, *, cache: Path | None = None, **settings: Any) -> LlamaRuntime:
        """Load an artifact.

        Args:
            path: A .gguf file, a folder with exactly one, or a full-precision Llama folder.
            cache: Folder in which a twin is kept; where None it is removed once loaded.
            **settings: `threads` (default: all cores), `context` (default: as trained, at most 2048), `batch`
                (tokens per call, default 512), `twin_dtype` (`auto`, `BF16`, `F16`, `F32`).

        Raises:
            MissingExtraError: Neither `xllamacpp` nor `llama-cpp-python` is installed, or, for a twin, not `gguf`.
            ArtifactError: The files do not load.
            UsageError: A setting is unknown or out of range.
        """
        find_library()
        dtype = settings.pop("twin_dtype", "auto")
        chosen = read_settings(settings)
        if dtype not in _TWIN_TYPES:
            raise bad_setting(NAME, "twin_dtype", dtype, f"one of {', '.join(_TWIN_TYPES)}")
        reason = self.reason_not_loadable(path)
        if reason is not None:
            raise ArtifactError(
                f"llama.cpp cannot load {path.name}: {reason}.",
                why="What does not load cannot be measured.",
                fix=f"quantgov inspect {path}",
            )
        files = gguf_files(path)
        if files:
            return LlamaRuntime(files[0], chosen)
        if cache is not None:
            return self._open_twin(path, cache, chosen, dtype)
        with tempfile.TemporaryDirectory(prefix="quantgov-twin-") as folder:
            return self._open_twin(path, Path(folder), chosen, dtype)

    @staticmethod
    def _open_twin(path: Path, cache: Path, settings: LlamaSettings, dtype: TwinType) -> LlamaRuntime:
        twin = gguf_twin(path, cache, dtype=dtype)
        return LlamaRuntime(twin.path, settings, twin="lossless-twin", notes=_notes(twin))

    def load_libraries(self, path: Path) -> None:
        """Load llama.cpp."""
        library()

    def configurations(self, path: Path) -> list[Configuration]:
        """The file as it is, and a twin in each type that holds every number of the folder's or the file's matrices."""
        if files := gguf_files(path):
            return [Configuration("as stored"), *_file_twins(files[0])]
        if reason_no_twin(path):
            return [Configuration("as stored")]
        tensors = read_folder(path)
        matrices = {name: tensor for name, tensor in tensors.items() if len(tensor.shape) > 1}
        return [
            Configuration(f"{one.name} twin", {"twin_dtype": one.name}, one.weight_bytes, one.lossy)
            for one in configurations_by_type(matrices, matrix_types(tensors))
        ]

    def prepare(self, path: Path, configuration: Configuration, cache: Path) -> Prepared:
        """Write the twin, and prove it equal."""
        settings = dict(configuration.settings)
        dtype = settings.pop("twin_dtype", "auto")
        if (files := gguf_files(path)) and dtype == "auto":
            return Prepared(files[0], settings)
        if files:
            twin = file_twin(files[0], cache, dtype)
            return Prepared(twin.path, settings, "lossless-twin", _notes(twin))
        twin = gguf_twin(path, cache, dtype=dtype)
        return Prepared(twin.path, settings, "lossless-twin", _notes(twin))


def _notes(twin: Twin) -> dict[str, Any]:
    return {"twin_dtype": twin.proof.dtype, "twin_tensors_equal": twin.proof.tensors}


def _file_twins(file: Path) -> list[Configuration]:
    """Other types of a full-precision file; none of one that is quantized, or where `gguf` is not installed."""
    try:
        tensors = {name: tensor for name, tensor in stored_tensors(file).items() if len(tensor.shape) > 1}
    except (ArtifactError, MissingExtraError):
        return []
    kinds = matrix_types(tensors)
    return [
        Configuration(f"{one.name} twin", {"twin_dtype": one.name}, one.weight_bytes, one.lossy)
        for one in configurations_by_type(tensors, kinds)
        if kinds != {one.name}
    ]


def gguf_files(path: Path) -> list[Path]:
    """The .gguf files that an artifact consists of (a file: itself)."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    return [path] if path.suffix.lower() == ".gguf" else []


def read_settings(values: dict[str, Any]) -> LlamaSettings:
    """Checked settings; what is not given gets its default.

    Raises:
        UsageError: A name is unknown, or a value is not a whole number above 0.
    """
    return read_checked(LlamaSettings, NAME, values, others=("twin_dtype",))
