"""What a version's folder holds beside the model that was inspected: weights under any name, and who would load them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mlflow_quantgov.artifact.folder import open_artifact
from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.facts.mlmodel import NAME, UNREADABLE, elsewhere_problem, flavors_of, unreadable

LOADER = "mlflow_quantgov.flavor"
MOST_OTHER_BYTES = 50_000_000
"""More than this in all is weights of something, whatever it is called; only small models count as `other`."""
_WEIGHTS = {".safetensors", ".gguf", ".onnx", ".onnx_data", ".ort", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}
_INSPECTED = {".safetensors", ".gguf"}
_MAX_FILES = 10_000
_MAX_MEMBERS = 10_000
_MOST_MLMODELS = 20
_NO_WEIGHTS = {"training_args.bin", "openvino_tokenizer.bin", "openvino_detokenizer.bin"}
"""What libraries write beside a model under a name that looks like weights."""
_ADAPTER = "adapter_config.json"
_FLAVORS = {"python_function", "quantgov"}


def weights_below(root: Path, *, but: Path | None = None, read: frozenset[Path] = frozenset()) -> str | None:
    """Name of the first file that holds model weights, by its suffix or by its first bytes; None where there is none.

    Args:
        root: Folder or file to look through.
        but: Folder of the model that is loaded: there, only weights that are called something else count.
        read: Files that were inspected, links resolved.

    Raises:
        ArtifactError: There are more files than anybody would look at.
    """
    for path in _files(root):
        if path.resolve() in read:
            continue
        inspected = but is not None and path.is_relative_to(but)
        if inspected and path.suffix in _INSPECTED:
            continue
        if (
            (path.suffix.lower() in _WEIGHTS and not inspected and path.name not in _NO_WEIGHTS)
            or _begins_like_weights(_first_bytes(path))
            or _zip_holds_weights(path)
        ):
            return path.relative_to(root).as_posix() if path != root else path.name
    return None


def other_problem(root: Path, artifact: Path | None = None) -> str | None:
    """Why a version cannot count as a model of another kind, or None.

    Args:
        root: Folder (or the one file) of the version.
        artifact: What was inspected in it, and is no language model; None where nothing could be inspected.
    """
    files = open_artifact(artifact) if artifact is not None else None
    read = frozenset(path.resolve() for path in files.read) if files is not None else frozenset()
    linked = _link_out(root)
    if linked is not None:
        return f"{linked} is a link to a folder, or out of the version, and was not followed."
    found = weights_below(root, read=read)
    if found is not None:
        if files is None:
            return f"{found} holds model weights that were not recognised as a model."
        return f"{found} holds weights beside the model that was inspected."
    if files is not None and (files.root / _ADAPTER).exists():
        return f"{_ADAPTER} has a loader take another model, which was not inspected."
    every = list(_files(root))
    size = sum(path.stat().st_size for path in every if path.resolve() not in read)
    if size > MOST_OTHER_BYTES:
        return f"It holds {size:,} bytes that nobody can read as a model."
    # One further down is read where a loader is pointed at its folder.
    described = [path for path in every if path.name.casefold() == NAME.casefold()]
    if len(described) > _MOST_MLMODELS:
        return f"It holds {len(described):,} files called {NAME}, of which a loader may take any."
    for path in described:
        elsewhere = elsewhere_problem(path, files)
        if elsewhere is not None:
            return elsewhere
    return None if every else "It holds no files."


def loading_problem(root: Path, files: Path) -> str | None:
    """Why MLflow would load something else than the files that were inspected, or None.

    Args:
        root: A version that this flavor logged.
        files: The folder inside it that was inspected.
    """
    path = root / NAME
    try:
        if not path.is_file():
            return "MLmodel is no ordinary file."
        flavors = flavors_of(path)
        loader, data = flavors["python_function"]["loader_module"], flavors["python_function"]["data"]
        codes = [one.get("code") for one in flavors.values()]
    except UNREADABLE as error:
        return unreadable(error)
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


def _link_out(root: Path) -> str | None:
    """The first link that leads to what the list of files does not show."""
    home = root.resolve()
    for path in islice(root.rglob("*"), _MAX_FILES + 1):
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(home)):
            return path.relative_to(root).as_posix()
    return None


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _begins_like_weights(head: bytes) -> bool:
    """GGUF by its magic; safetensors by the length of a JSON object that begins after it, however that is laid out."""
    length = int.from_bytes(head[:8], "little")
    return head[:4] == b"GGUF" or (len(head) == 16 and 2 <= length < 1 << 30 and head[8:9] == b"{")


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
