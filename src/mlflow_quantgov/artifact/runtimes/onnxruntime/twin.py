"""An fp32 ONNX twin of a full-precision folder, made by onnxruntime-genai's builder and proved equal tensor by tensor."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mlflow_quantgov.artifact.runtimes.llama_cpp.twin_tokenizer import read_json
from mlflow_quantgov.artifact.runtimes.onnxruntime.builder import BUILDER, build
from mlflow_quantgov.artifact.runtimes.onnxruntime.twin_proof import OnnxTwin, prove_twin
from mlflow_quantgov.artifact.runtimes.twins import source_digest
from mlflow_quantgov.errors import ArtifactError

RECIPE = "onnx-twin 1"
_SOURCES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def reason_no_twin(folder: Path) -> str | None:
    """Why the builder cannot make a twin of a folder, or None. Reads `config.json` alone."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        return "it holds neither an .onnx file nor a config.json with safetensors"
    try:
        config = read_json(folder / "config.json")
    except ArtifactError as error:
        return error.what
    if config.get("quantization_config") or config.get("compression_config"):
        return "it is quantized in a format that is not ONNX"
    if "auto_map" in config:
        return "its config asks for code of its own, which is not run"
    if not (folder / "tokenizer.json").is_file():
        return "there is no tokenizer.json"
    return None


def onnx_twin(folder: Path, cache: Path) -> OnnxTwin:
    """Build (or find in `cache`) the fp32 twin of a folder, and compare it with its source.

    The comparison is made anew on every call: files in the cache are not believed.

    Args:
        folder: Full-precision folder: config.json, *.safetensors, tokenizer.json.
        cache: Folder to keep the twin in, by the digest of the files that it was made from.

    Raises:
        ArtifactError: The builder does not build it.
        MissingExtraError: onnxruntime-genai, or what its builder needs, is not installed.
    """
    reason = reason_no_twin(folder)
    if reason:
        raise _no_twin(folder, reason)
    path = cache / f"onnx-twin-{source_digest(folder, RECIPE, _SOURCES)[:32]}-fp32"
    if not (path / "model.onnx").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".onnx-twin-", dir=cache) as scratch:
            build(folder, Path(scratch) / "twin", "fp32")
            shutil.rmtree(path, ignore_errors=True)
            (Path(scratch) / "twin").replace(path)
    return prove_twin(folder, path)


def _no_twin(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"No ONNX twin of {folder.name} can be made: {reason}.",
        why="Without one the parent cannot run in onnxruntime beside its quantized version.",
        fix=f"python -m {BUILDER} -m {folder} -o OUT -p fp32 -e cpu, and measure with OUT as the parent",
    )
