"""What a version's folder holds beside the model that was inspected: weights under any name, and who would load them."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mlflow_quantgov.errors import ArtifactError

LOADER = "mlflow_quantgov.flavor"
OURS = "quantgov"
"""Folder of a version in which evidence and reports are added after the registration."""
MOST_OTHER_BYTES = 50_000_000
"""More than this in all is weights of something, whatever it is called; only small models count as `other`."""
_WEIGHTS = {".safetensors", ".gguf", ".onnx", ".onnx_data", ".ort", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}
_INSPECTED = {".safetensors", ".gguf"}
_MAX_FILES = 10_000
_MAX_MEMBERS = 10_000
_MAX_MLMODEL_BYTES = 1_000_000
_FLAVORS = {"python_function", "quantgov"}
_UNREADABLE = (OSError, yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError, AttributeError)
"""What reading an MLmodel raises where it is not one, or not what MLflow writes."""


class _PlainLoader(yaml.SafeLoader):
    """Safe loader without merge keys, with which a file of a kilobyte fills any memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys are not read here")
        super().flatten_mapping(node)


def weights_below(root: Path, *, but: Path | None = None) -> str | None:
    """Name of the first file that holds model weights, by its suffix or by its first bytes; None where there is none.

    Args:
        root: Folder or file to look through.
        but: Folder that was inspected: there, only weights that are called something else count.

    Raises:
        ArtifactError: There are more files than anybody would look at.
    """
    for path in _files(root):
        inspected = but is not None and path.is_relative_to(but)
        if inspected and path.suffix in _INSPECTED:
            continue
        if (
            (path.suffix.lower() in _WEIGHTS and not inspected)
            or _begins_like_weights(_first_bytes(path))
            or _zip_holds_weights(path)
        ):
            return path.relative_to(root).as_posix() if path != root else path.name
    return None


def other_problem(root: Path) -> str | None:
    """Why a folder in which inspection found no language model cannot count as a model of another kind, or None."""
    found = weights_below(root)
    if found is not None:
        return f"{found} holds model weights that were not recognised as a model."
    named = _named_elsewhere(root)
    if named is not None:
        return named
    sizes = [path.stat().st_size for path in _files(root)]
    if sum(sizes) > MOST_OTHER_BYTES:
        return f"It holds {sum(sizes):,} bytes that nobody can read as a model."
    return None if sizes else "It holds no files."


def loading_problem(root: Path, files: Path) -> str | None:
    """Why MLflow would load something else than the files that were inspected, or None.

    Args:
        root: A version that this flavor logged.
        files: The folder inside it that was inspected.
    """
    path = root / "MLmodel"
    try:
        if not path.is_file():
            return "MLmodel is no ordinary file."
        flavors = _flavors(root)
        loader, data = flavors["python_function"]["loader_module"], flavors["python_function"]["data"]
        codes = [one.get("code") for one in flavors.values()]
    except _UNREADABLE as error:
        return _unreadable(error)
    if not isinstance(loader, str) or not isinstance(data, str):
        return "MLmodel names its loader or its data by something else than a word."
    if loader != LOADER or data != files.name:
        return f"MLmodel loads {data[:100]!r} by {loader[:100]!r}, not the files that were inspected."
    # The flavor of a client decides what is loaded: another one would load another model from the same version.
    if others := sorted(str(one) for one in flavors.keys() - _FLAVORS):
        return f"MLmodel can also be loaded as {others[0][:100]!r}, which is not the model that was inspected."
    if any(codes) or (root / "code").exists():
        return "It brings code of its own, which would run in place of installed packages and was not measured."
    extra = weights_below(root, but=files)
    return f"{extra} holds weights beside the model that was inspected." if extra else None


def _named_elsewhere(root: Path) -> str | None:
    """Whether MLmodel loads what does not lie here, or may come later: from a hub, or from where evidence is added."""
    if not (root / "MLmodel").is_file():
        return None
    try:
        flavors = _flavors(root)
        for name, described in flavors.items():
            # As MLflow's transformers flavor writes it with `save_pretrained=False`.
            if "source_model_name" in described and "model_binary" not in described:
                return f"MLmodel has {str(name)[:100]!r} fetch {str(described['source_model_name'])[:100]!r}, which does not lie here."
            if any(_is_ours(value) for value in described.values()):
                return f"MLmodel has {str(name)[:100]!r} load from {OURS}/, where files may still be added."
    except _UNREADABLE as error:
        return _unreadable(error)
    return None


def _is_ours(value: object) -> bool:
    return isinstance(value, str) and OURS in PurePosixPath(posixpath.normpath(value)).parts


def _unreadable(error: Exception) -> str:
    return f"MLmodel cannot be read ({type(error).__name__}), so nobody knows what would be loaded."


def _flavors(root: Path) -> Any:
    """What MLmodel says of its flavors; raises a lot where it is not one."""
    path = root / "MLmodel"
    if path.stat().st_size > _MAX_MLMODEL_BYTES:
        raise ValueError("MLmodel is too large to be one")
    with path.open("rb") as file:
        content = file.read(_MAX_MLMODEL_BYTES)
    return yaml.load(content.decode("utf-8"), Loader=_PlainLoader)["flavors"]  # noqa: S506  (a SafeLoader)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    # Counted before they are sorted: a folder may hold any number.
    found = list(islice(root.rglob("*"), _MAX_FILES + 1))
    if len(found) > _MAX_FILES:
        raise ArtifactError(
            f"{root.name} holds more than {_MAX_FILES:,} files.",
            why="What cannot be looked through cannot be judged.",
            fix="log the model without them",
        )
    yield from (path for path in sorted(found) if path.is_file())


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _begins_like_weights(head: bytes) -> bool:
    """GGUF by its magic; safetensors by the length of a JSON object that begins after it."""
    length = int.from_bytes(head[:8], "little")
    return head[:4] == b"GGUF" or (len(head) == 16 and 2 <= length < 1 << 30 and head[8:10] in {b'{"', b"{ ", b"{}"})


def _zip_holds_weights(path: Path) -> bool:
    """Whether a zip archive has a member of weights; its list is read, its members' first bytes only."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                return True
            for member in members:
                if Path(member.filename).suffix.lower() in _WEIGHTS or member.flag_bits & 1:
                    return True
                with archive.open(member) as file:
                    if _begins_like_weights(file.read(16)):
                        return True
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return True  # broken, encrypted, or packed in a way that zipfile does not know: nobody can look inside
    return False
