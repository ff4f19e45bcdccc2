"""Which file of a folder is the graph that a loader would read, and its headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from mlflow_quantgov.artifact.files import read_json_object
from mlflow_quantgov.artifact.formats.interface import GRAPH_CONFIGS, ArtifactFiles
from mlflow_quantgov.artifact.tensors import read_onnx, read_openvino
from mlflow_quantgov.errors import ArtifactError

GENAI_CONFIG = "genai_config.json"
GRAPH_SUFFIXES = frozenset({".onnx", ".xml"})
_LANGUAGE = "openvino_language_model.xml"
_TOKENIZERS = frozenset({"openvino_tokenizer.xml", "openvino_detokenizer.xml"})


def graphs_of(root: Path, names: Iterable[str]) -> list[str]:
    """The graphs among the files of a folder that may be its model; one where it can be told.

    Raises:
        ArtifactError: genai_config.json names a graph that is not there.
    """
    known = set(names)
    onnx = sorted(name for name in known if name.endswith(".onnx"))
    named = _named_by_genai(root) if onnx else None
    if named is not None:
        if named not in onnx:
            raise ArtifactError(
                f"{GENAI_CONFIG} of {root.name} names the graph {named[:100]!r}, which is not there.",
                why="onnxruntime-genai would not load the folder.",
                fix="copy or download the folder again, then quantgov inspect PATH",
            )
        onnx = [named]
    openvino = sorted(name for name in known if _is_openvino(name, known))
    if _LANGUAGE in openvino:
        openvino = [_LANGUAGE]
    top = [name for name in (*onnx, *openvino) if "/" not in name]
    return top or [*onnx, *openvino]


def open_graph(root: Path, path: Path, size: int, warnings: tuple[str, ...]) -> ArtifactFiles:
    """Read one graph and the configs of its folder.

    Args:
        root: Folder whose configs count.
        path: The `.onnx` or `.xml` file.
        size: Bytes of all files, or of the one file; then those that it needs are added.
        warnings: What was noticed about the folder.

    Raises:
        ArtifactError: See `read_onnx` and `read_openvino`.
    """
    config = read_json_object(root / "config.json")
    extra = {name: read_json_object(root / name) for name in GRAPH_CONFIGS}
    onnx = read_onnx(path) if path.suffix == ".onnx" else None
    openvino = read_openvino(path) if onnx is None else None
    return ArtifactFiles(root, config, {}, {}, size, extra, warnings=warnings, onnx=onnx, openvino=openvino)


def companions(path: Path) -> tuple[Path, ...]:
    """Files beside a graph that hold its weights.

    Raises:
        ArtifactError: The graph cannot be read.
    """
    if path.suffix == ".onnx":
        return read_onnx(path).external
    return (read_openvino(path).weights,)


def weights_beside(paths: Mapping[str, Path]) -> set[str]:
    """Among the files of a folder, those in which readable ONNX graphs keep tensors, whatever they are called."""
    names = {path.resolve(): name for name, path in paths.items()}
    found: set[str] = set()
    for name, path in paths.items():
        if not name.endswith(".onnx"):
            continue
        try:
            found |= {names[one.resolve()] for one in companions(path) if one.resolve() in names}
        except ArtifactError:
            continue
    return found


def _is_openvino(name: str, known: set[str]) -> bool:
    path = PurePosixPath(name)
    if path.suffix != ".xml" or path.name in _TOKENIZERS:
        return False
    return path.name.startswith("openvino") or str(path.with_suffix(".bin")) in known


def _named_by_genai(root: Path) -> str | None:
    """The graph of the decoder, as onnxruntime-genai's config names it."""
    model = read_json_object(root / GENAI_CONFIG).get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    named = decoder.get("filename") if isinstance(decoder, dict) else None
    return named if isinstance(named, str) else None
