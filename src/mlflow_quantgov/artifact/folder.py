"""Opens a model folder or file: which of its files a loader would read, and the headers of those."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow_quantgov.artifact.files import list_files, read_json_object
from mlflow_quantgov.artifact.formats.interface import NOTES, SIDE_CONFIGS, ArtifactFiles
from mlflow_quantgov.artifact.formats.unread import unknown_format
from mlflow_quantgov.artifact.graph_files import GRAPH_SUFFIXES, companions, graphs_of, open_graph
from mlflow_quantgov.artifact.tensors import GgufFile, Tensor, open_safetensors, read_gguf
from mlflow_quantgov.artifact.tensors.gguf import PROJECTOR
from mlflow_quantgov.errors import ArtifactError, pasted

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
_NAMED_WEIGHTS = "transformers_weights"
"""Key of a config that makes transformers load this file before any other."""
_ADAPTER = "adapter_model.safetensors"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_NO_WEIGHTS = re.compile(r"^(training_args|optimizer|scheduler|scaler|rng_state)")
_NUMBERED = re.compile(r"^(.*)-(\d{5})-of-(\d{5})(\.safetensors|\.gguf)$")


def open_artifact(path: Path) -> ArtifactFiles:
    """Read and check the headers of the model at a path; no payload is read.

    Raises:
        ArtifactError: Nothing there, truncated, contradicting itself, several models, or a pickle.
        UnknownFormatError: An adapter alone, or onnxruntime's own format.
    """
    found = dict(list_files(path))
    size = sum(file.stat().st_size for file in found.values())
    if path.is_file():
        if _is_gguf(path):
            return _of_ggufs(path, [_whole_gguf(path)], size, ())
        if path.suffix == ".safetensors":
            _refuse_shard(path)
            return _of_safetensors(path.parent, {path.name: path}, size, ())
        if path.suffix in GRAPH_SUFFIXES:
            beside = sum(one.stat().st_size for one in companions(path))
            return open_graph(path.parent, path, size + beside, ())
        raise _no_weights(path, list(found))
    top = [name for name in found if "/" not in name]
    ggufs = [name for name in top if name.endswith(".gguf")]
    tensors = _shards(path, [name for name in top if name.endswith(".safetensors")])
    if ggufs and tensors:
        raise _several(path, [ggufs[0], tensors[0]])
    if tensors:
        warnings = _beside(list(found), set(tensors))
        return _of_safetensors(path, {name: found[name] for name in tensors}, size, warnings)
    if ggufs:
        parts, warnings = _one_gguf(path, {name: read_gguf(found[name]) for name in ggufs})
        return _of_ggufs(path, parts, size, warnings + _beside(list(found), set(ggufs)))
    graphs = graphs_of(path, found)
    if len(graphs) > 1:
        raise _several(path, graphs)
    if graphs:
        return open_graph(path, found[graphs[0]], size, _beside(list(found), set(graphs)))
    raise _no_weights(path, list(found))


def tensor_files_read(root: Path, names: Iterable[str]) -> frozenset[str]:
    """Names of the safetensors or GGUF files of a folder that make up its model for every loader.

    Args:
        root: The folder.
        names: Relative paths of all files in it.

    Returns:
        Those that `open_artifact` reads; empty where it reads none, or refuses the choice.
    """
    top = sorted(name for name in names if "/" not in name)
    ggufs = [name for name in top if name.endswith(".gguf")]
    try:
        shards = _shards(root, [name for name in top if name.endswith(".safetensors")])
        if shards and ggufs:
            return frozenset()
        if shards:
            other = _named_otherwise(root, read_json_object(root / "config.json"), set(shards))
            return frozenset(shards if other is None else ())
        if not ggufs:
            return frozenset()
        parts, _ = _one_gguf(root, {name: read_gguf(root / name) for name in ggufs})
    except ArtifactError:
        return frozenset()
    return frozenset(part.path.name for part in parts)


def found_by_name(names: Iterable[str]) -> bool:
    """Whether transformers finds these files by their names, before it looks for weights of another kind."""
    return any(name in {SINGLE, INDEX} for name in names)


def _of_ggufs(path: Path, parts: list[GgufFile], size: int, warnings: tuple[str, ...]) -> ArtifactFiles:
    root = path if path.is_dir() else path.parent
    return ArtifactFiles(root, {}, {}, {}, size, ggufs=tuple(parts), warnings=warnings)


def _of_safetensors(root: Path, shards: dict[str, Path], size: int, warnings: tuple[str, ...]) -> ArtifactFiles:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for shard in shards.values():
        opened = open_safetensors(shard)
        for name, tensor in opened.tensors.items():
            if name in tensors:
                raise _contradiction(root, f"{name[:100]!r} stands in two of its files")
            tensors[name] = tensor
        texts |= opened.metadata
    if len(shards) > 1 or SINGLE not in shards:
        _check_index(root, tensors, set(shards))
    extra = {name: read_json_object(root / name) for name in (*SIDE_CONFIGS, *NOTES)}
    config = read_json_object(root / "config.json")
    named = _named_otherwise(root, config, set(shards))
    if named is not None:
        problem = f"{_NAMED_WEIGHTS} of its config.json names {named[:100]!r}, not {next(iter(shards))}"
        raise _contradiction(root, problem)
    return ArtifactFiles(root, config, tensors, texts, size, extra, warnings=warnings)


def _named_otherwise(root: Path, config: dict[str, Any], shards: set[str]) -> str | None:
    """The file that a config makes transformers load, where that is not these shards."""
    named = config.get(_NAMED_WEIGHTS)
    meant = set(_weight_map(root).values()) if named == INDEX else {str(named)}
    return str(named) if named is not None and meant != shards else None


def _shards(root: Path, names: list[str]) -> list[str]:
    """The safetensors files that a loader reads: one of the usual name, those of the index, or the only one."""
    if SINGLE in names:
        return [SINGLE]
    mapped = _weight_map(root)
    if mapped:
        missing = sorted(set(mapped.values()) - set(names))
        if missing:
            raise _contradiction(root, f"the index names {missing[0][:100]!r}, which is not there")
        return sorted(set(mapped.values()))
    numbered = [name for name in names if _NUMBERED.match(name)]
    if numbered and numbered == names:
        _check_numbers(root, numbered)
        return names
    if _ADAPTER in names:
        return [_ADAPTER]
    if len(names) > 1:
        raise _several(root, names)
    return names


def _weight_map(root: Path) -> dict[str, str]:
    """Tensor name to file name, from the index; empty where there is none."""
    mapped = read_json_object(root / INDEX).get("weight_map", {})
    if not isinstance(mapped, dict) or not all(isinstance(shard, str) for shard in mapped.values()):
        raise _contradiction(root, f"the weight map of {INDEX} is no list of names")
    for shard in set(mapped.values()):
        if PurePosixPath(shard).name != shard or shard in {"", ".", ".."} or "\\" in shard:
            raise _contradiction(root, f"the index names {shard[:100]!r}, which is no file name")
    return mapped


def _check_index(root: Path, tensors: dict[str, Tensor], shards: set[str]) -> None:
    mapped = _weight_map(root)
    for name, shard in mapped.items():
        if shard in shards and (name not in tensors or tensors[name].file.name != shard):
            raise _contradiction(root, f"the index places {name[:100]!r} in {shard[:100]!r}, where it is not")
    unlisted = sorted(tensors.keys() - mapped.keys()) if mapped else []
    if unlisted:
        raise _contradiction(root, f"its index does not list {unlisted[0][:100]!r}, which no loader would read")


def _check_numbers(root: Path, names: list[str]) -> None:
    """Numbered parts must be complete and belong together."""
    found = [match for name in names if (match := _NUMBERED.match(name))]
    stems = {(match[1], match[3]) for match in found}
    wanted = list(range(1, int(found[0][3]) + 1))
    if len(stems) != 1 or sorted(int(match[2]) for match in found) != wanted:
        raise _contradiction(
            root, f"its numbered parts are not those of one whole model ({len(names)} of {len(wanted)})"
        )


def _refuse_shard(path: Path) -> None:
    mapped = set(_weight_map(path.parent).values())
    if path.name in mapped and len(mapped) > 1:
        raise ArtifactError(
            f"{path.name} is one of {len(mapped)} parts of a model.",
            why="What it is can only be told from all of them.",
            fix=f"quantgov inspect {path.parent}",
        )


def _whole_gguf(path: Path) -> GgufFile:
    file = read_gguf(path)
    if _split_count(file) > 1:
        raise ArtifactError(
            f"{path.name} is one of {_split_count(file)} parts of a model.",
            why="What it is can only be told from all of them.",
            fix=f"put its parts into a folder of their own, then quantgov inspect {path.parent}",
        )
    return file


def _one_gguf(root: Path, files: dict[str, GgufFile]) -> tuple[list[GgufFile], tuple[str, ...]]:
    """The one model among a folder's GGUF files, and what else was seen: parts of it, a projector beside it."""
    models = {name: one for name, one in files.items() if one.metadata.get("general.architecture") != PROJECTOR}
    warnings = tuple(f"not-inspected: {name} is a projector" for name in files if name not in models)
    models = models or files
    counts = {_split_count(one) for one in models.values()}
    if len(counts) == 1 and len(models) < max(counts):
        raise _contradiction(root, f"it holds {len(models)} of {max(counts)} parts of a model")
    if len(models) > 1 and any(_split_count(one) != len(models) for one in models.values()):
        raise _several(root, sorted(models))
    parts = [models[name] for name in sorted(models)]
    if len(parts) > 1:
        parts.sort(key=lambda one: str(one.metadata.get("split.no")).zfill(10))
        if [one.metadata.get("split.no") for one in parts] != list(range(len(parts))):
            raise _contradiction(root, "its GGUF parts are not those of one whole model")
        names = [name for one in parts for name in one.tensors]
        if len(set(names)) != len(names):
            raise _contradiction(root, "a tensor stands in two of its GGUF parts")
    return parts, warnings


def _split_count(file: GgufFile) -> int:
    count: Any = file.metadata.get("split.count", 1)
    return count if type(count) is int and count > 0 else 1


def _beside(names: list[str], read: set[str]) -> tuple[str, ...]:
    """Warnings about other weights in the folder, which another loader may prefer."""
    warnings = []
    for name in sorted(set(names) - read):
        path = PurePosixPath(name)
        pickle = path.suffix in _PICKLES and not _NO_WEIGHTS.match(path.name) and not path.name.startswith("openvino")
        if pickle or path.suffix in {".safetensors", ".gguf", ".onnx"} or path.name == "openvino_model.xml":
            warnings.append(f"not-inspected: {name[:200]} also holds weights")
    return tuple(warnings[:20])


def _is_gguf(path: Path) -> bool:
    if path.suffix == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _no_weights(source: Path, names: list[str]) -> ArtifactError:
    paths = [PurePosixPath(name) for name in names]
    suffixes = {path.suffix for path in paths}
    if ".ort" in suffixes:
        return unknown_format(source.name, "onnxruntime's own format (.ort)")
    pickles = sorted({path.suffix for path in paths if path.suffix in _PICKLES})
    if pickles:
        return ArtifactError(
            f"{source.name} holds a PyTorch checkpoint ({', '.join(pickles)}), which is a pickle.",
            why="Loading a pickle runs whatever code it names; nothing here ever does.",
            fix="save the model again with save_pretrained(..., safe_serialization=True)",
        )
    return ArtifactError(
        f"{source.name or source} holds no model weights that can be read.",
        why="Safetensors, GGUF, ONNX and OpenVINO are read; nothing else says safely what it is.",
        fix="quantgov inspect PATH of a folder with .safetensors, or of a .gguf or .onnx file",
    )


def _several(source: Path, names: list[str]) -> ArtifactError:
    return ArtifactError(
        f"{source.name} holds several models ({', '.join(name[:60] for name in names[:3])}).",
        why="It cannot be told which of them would be served.",
        fix=f"name one file (quantgov inspect {pasted(f'{source}/{names[0]}')}), or give each model a folder of its own",
    )


def _contradiction(root: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{root.name} contradicts itself: {problem}.",
        why="Facts about a model are read from its bytes; from these they cannot be.",
        fix="copy or download the folder again, then quantgov inspect PATH",
    )
