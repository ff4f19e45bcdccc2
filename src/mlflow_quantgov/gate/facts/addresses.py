"""Addresses of files that every reader takes the same way.

A version's files are read by MLflow's clients, by its artifact routes, by the libraries of the stores, and by the gate. Each
has its own idea of percent signs, of what stands behind a question mark, and of empty names between slashes; where they
differ, what is judged is not what is loaded. So only an address is taken in which nothing has to be decoded, dropped or
joined, or where one decoding is the end of it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from mlflow_quantgov.errors import ArtifactError, short
from mlflow_quantgov.policy.stores import ENCODED

MEND = (
    "name the folder without such signs, and without a slash at its end; where the experiment's artifact location has them, "
    "log the model into another experiment"
)
PROMPT = "dummy-source"
"""What MLflow writes where the files of a prompt would lie."""
VERSION = re.compile(r"^models:/(?P<name>[^/@]+)/(?P<version>\d+)$")
LOGGED = re.compile(r"^models:/(m-[0-9a-f]{32})$")
_SCHEME = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):")
_FOLDERS = frozenset({"", "file"})
"""On this machine a slash at the end changes nothing; in a store of objects it is a part of their names."""
_MEANS_MORE = re.compile(r"[?#;%\\]")


def oddity(address: str) -> str | None:
    """What two readers of an address may take differently; None where there is no such thing.

    Args:
        address: A URI, or the path of a folder.
    """
    scheme, path = _parted(address)
    if scheme == "models":
        return None if VERSION.fullmatch(address) or LOGGED.fullmatch(address) else "it is no models:/NAME/VERSION"
    if scheme != scheme.lower():
        return f"its scheme is written {scheme}"
    if address != address.strip() or not address.isprintable():
        return "it holds signs that no screen shows"
    if path.startswith("//") and scheme:
        authority, _, path = path.removeprefix("//").partition("/")
        if scheme == "file" and authority:
            return "it names a host"
        if found := _MEANS_MORE.search(authority):
            return f"it holds {found[0]}"
        path = f"/{path}"
    once = _decoded(path) if scheme in ENCODED else path
    if once.count("/") != path.count("/") or not once.isprintable():
        return "a percent sign hides something in it"
    if found := _MEANS_MORE.search(once):
        return f"it holds {found[0]}"
    if scheme in _FOLDERS:
        once = once.removesuffix("/")
    names = once.removeprefix("/").split("/") if once.strip("/") else []
    if any(name in {"", ".", ".."} for name in names):
        return "a name between its slashes is empty, or leads elsewhere"
    return None


def check_address(address: str, whose: str) -> None:
    """Refuse an address that two readers may take differently.

    Args:
        address: Where files lie.
        whose: The version, for the message.

    Raises:
        ArtifactError: It is one.
    """
    scheme, path = _parted(address)
    if scheme == "runs":
        raise ArtifactError(
            f"The files of {whose} are named by their run ({short(address, 80)}): mlflow.register_model names their folder.",
            why="At each download clients lay the logged models of that run over them, also those that come later.",
            fix="mlflow.register_model('runs:/RUN/NAME', MODEL)",
        )
    if address == PROMPT:
        raise ArtifactError(
            f"There are no files of {whose}: it is one of MLflow's prompts, which need a rule of their own in the policy.",
            why="What cannot be read cannot be judged.",
            fix="name prompts alike, and put before the other rules: {models: 'prompt-*', destinations: {}, other_destinations: open}",
        )
    odd = oddity(address)
    if odd is None and scheme in _FOLDERS and not path.startswith("/"):
        odd = "it begins at whatever folder its reader stands in"
    if odd is not None:
        raise ArtifactError(
            f"The address of the files of {whose} can be read in two ways: {odd} ({short(address, 80)}).",
            why="What is judged might not be what is loaded.",
            fix=MEND,
        )


def _parted(address: str) -> tuple[str, str]:
    """Scheme, empty for a plain path, and what stands behind it."""
    named = _SCHEME.match(address)
    return (named["scheme"], address[named.end() :]) if named else ("", address)


def _decoded(path: str) -> str:
    """Decoded once; as it stands where that gives no text."""
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path
