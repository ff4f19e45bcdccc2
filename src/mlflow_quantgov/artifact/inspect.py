"""`inspect`: what a model artifact is, from tensors and headers alone (no torch, no network, no code execution)."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.formats import gguf_format
from mlflow_quantgov.artifact.formats.awq import Awq
from mlflow_quantgov.artifact.formats.bitsandbytes import BitsAndBytes
from mlflow_quantgov.artifact.formats.compressed_tensors import CompressedTensors
from mlflow_quantgov.artifact.formats.full_precision import FullPrecision
from mlflow_quantgov.artifact.formats.gptq import Gptq
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.torchao import TorchAo
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.tensors import Tensor, open_safetensors, read_gguf
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

MAX_JSON_BYTES = 64 * 1024 * 1024
ENTRY_POINTS = "mlflow_quantgov.formats"
# Full precision comes last: it is what is left when nothing else fits.
FORMATS: tuple[Format, ...] = (BitsAndBytes(), TorchAo(), CompressedTensors(), Gptq(), Awq(), FullPrecision())
_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


def inspect(path: str | Path) -> Inspection:
    """Read a model folder, or one `.gguf` file.

    Args:
        path: Folder or file.

    Raises:
        ArtifactError: Nothing there, truncated, contradicting itself, or a pickle.
        UnknownFormatError: A format that no reader knows; its name is given.
    """
    source = Path(path)
    if source.is_file():
        return _inspect_file(source)
    if not source.is_dir():
        raise ArtifactError(f"{source} does not exist.", why="There is no model to read.", fix=f"ls {source.parent}")
    files = sorted(one for one in source.rglob("*") if one.is_file())
    _refuse_links(source, files)
    size = sum(one.stat().st_size for one in files)
    if any(one.suffix == ".safetensors" for one in files):
        return _inspect_folder(source, [one for one in files if one.suffix == ".safetensors"], size)
    ggufs = [one for one in files if one.suffix == ".gguf"]
    if len(ggufs) == 1:
        return gguf_format.read(read_gguf(ggufs[0]), size)
    raise _no_weights(source, files)


def _inspect_file(path: Path) -> Inspection:
    if path.suffix == ".gguf" or _begins_with(path, b"GGUF"):
        return gguf_format.read(read_gguf(path), path.stat().st_size)
    if path.suffix == ".safetensors":
        return _inspect_folder(path.parent, [path], path.stat().st_size)
    raise _no_weights(path, [path])


def _inspect_folder(root: Path, shards: list[Path], size: int) -> Inspection:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for shard in shards:
        opened = open_safetensors(shard)
        for name, tensor in opened.tensors.items():
            if name in tensors:
                raise _contradiction(root, f"{name[:100]!r} stands in two shards")
            tensors[name] = tensor
        texts |= opened.metadata
    _check_index(root, tensors)
    config = _json(root / "config.json")
    extra = {name: _json(root / name) for name in ("quantize_config.json", "adapter_config.json")}
    files = ArtifactFiles(root, config, tensors, texts, size, extra)
    if extra["adapter_config.json"]:
        raise _unknown(root, "adapter")
    for reader in (*FORMATS[:-1], *_third_party(), FORMATS[-1]):
        if reader.detect(files):
            return reader.read(files)
    raise _unknown(root, files.claimed_method or "of an unknown kind")


def _third_party() -> list[Format]:
    return [point.load()() for point in metadata.entry_points(group=ENTRY_POINTS)]


def _check_index(root: Path, tensors: dict[str, Tensor]) -> None:
    index = _json(root / "model.safetensors.index.json")
    for name, shard in (index.get("weight_map") or {}).items():
        if name not in tensors or tensors[name].file.name != shard:
            raise _contradiction(root, f"the index places {name[:100]!r} in {str(shard)[:100]!r}, where it is not")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise _contradiction(path.parent, f"{path.name} cannot be read ({str(error)[:100]})") from error
    return found


def _refuse_links(root: Path, files: list[Path]) -> None:
    home = root.resolve()
    for path in files:
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ArtifactError(
                f"{path.relative_to(root)} is a link that leads out of {root.name}.",
                why="What is inspected would not be what lies in the folder.",
                fix=f"cp -rL {root} COPY, and use the copy",
            )


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _no_weights(source: Path, files: list[Path]) -> ArtifactError:
    suffixes = {one.suffix for one in files}
    if ".onnx" in suffixes:
        return _unknown(source, "onnx")
    if ".xml" in suffixes and any(one.name.startswith("openvino") for one in files):
        return _unknown(source, "openvino")
    if suffixes & _PICKLES:
        return ArtifactError(
            f"{source.name} holds a PyTorch checkpoint ({', '.join(sorted(suffixes & _PICKLES))}), which is a pickle.",
            why="Loading a pickle runs whatever code it names; nothing here ever does.",
            fix="save the model again with save_pretrained(..., safe_serialization=True)",
        )
    if len([one for one in files if one.suffix == ".gguf"]) > 1:
        return ArtifactError(
            f"{source.name} holds several GGUF files.",
            why="It cannot be told which of them is the model.",
            fix=f"quantgov inspect {source}/NAME.gguf",
        )
    return ArtifactError(
        f"{source.name or source} holds no model weights that can be read.",
        why="Safetensors and GGUF are read; nothing else says safely what it is.",
        fix="quantgov inspect PATH of a folder with .safetensors, or of a .gguf file",
    )


def _unknown(source: Path, name: str) -> UnknownFormatError:
    return UnknownFormatError(
        f"{source.name} is {name}, a format that is not read yet.",
        why="Its bits cannot be told from its bytes, so nothing about it would be certain.",
        fix="use GPTQ, AWQ, compressed-tensors, bitsandbytes, torchao or GGUF",
    )


def _contradiction(root: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{root.name} contradicts itself: {problem}.",
        why="Facts about a model are read from its bytes; from these they cannot be.",
        fix="copy or download the folder again, then quantgov inspect PATH",
    )
