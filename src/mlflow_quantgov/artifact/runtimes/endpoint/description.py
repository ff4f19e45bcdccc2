"""Where an endpoint is and how to ask it: a small YAML or JSON file, or settings."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import yaml

from mlflow_quantgov.errors import ArtifactError, UsageError

SCHEMA = "quantgov/endpoint/v1"
SUFFIXES = {".yaml", ".yml", ".json"}
MAX_BYTES = 64 * 1024
APIS = ("completions", "chat")
_TEXTS = ("url", "model", "api", "api_key_env")


@dataclass(frozen=True)
class Endpoint:
    """One served model."""

    url: str
    """Up to and with the version: `http://127.0.0.1:8080/v1`."""
    model: str | None = None
    """Name by which the server knows it; None for the only one that it lists."""
    api: Literal["completions", "chat"] = "completions"
    """`completions` sends the prompt as it is; `chat` as a user's turn, which the server's own template renders."""
    api_key_env: str | None = None
    """Environment variable that holds the key; the key itself never stands in a file or a statement."""
    context: int = 2048
    """Tokens per sequence; the endpoint does not say."""
    timeout: int = 120
    """Seconds to wait for one answer."""
    retries: int = 3
    """Further attempts after no connection, 429 or 5xx."""
    seed: int = 0

    @property
    def public_url(self) -> str:
        """The address without user, password, query and fragment."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        return urlunsplit(
            (parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path.rstrip("/"), "", "")
        )

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its address is a loopback one. What listens there may be a tunnel; that cannot be seen."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def key(self) -> str | None:
        """The key to send, if one is asked for.

        Raises:
            UsageError: The variable is not set.
        """
        if self.api_key_env is None:
            return None
        found = os.environ.get(self.api_key_env)
        if not found:
            raise UsageError(
                f"The environment variable {self.api_key_env} is not set.",
                why="The endpoint's description names it as the one that holds the key.",
                fix=f"export {self.api_key_env}=...",
            )
        return found


def is_description(path: Path) -> bool:
    """Whether a file says that it describes an endpoint."""
    try:
        return path.suffix in SUFFIXES and path.is_file() and _read(path).get("schema") == SCHEMA
    except ArtifactError:
        return False


def read_endpoint(path: Path, settings: dict[str, Any]) -> Endpoint:
    """The endpoint that a file describes, with settings that overrule it; any path where the settings name a `url`.

    Raises:
        ArtifactError: The file is no description.
        UsageError: A setting is unknown or out of range, or no `url` is given.
    """
    described = _read(path) if path.suffix in SUFFIXES and path.is_file() else {}
    if described and described.pop("schema", None) != SCHEMA:
        if "url" not in settings:
            raise _no_description(path, f"its schema is not {SCHEMA}")
        described = {}
    values = described | {name: value for name, value in settings.items() if value is not None}
    if "url" not in values:
        raise UsageError(
            f"{path.name} does not say where an endpoint is.",
            why="A served model is reached by its address.",
            fix=f"write a file with `schema: {SCHEMA}`, `url: http://HOST:PORT/v1` and `model: NAME`",
        )
    known = {field.name for field in fields(Endpoint)}
    for name, value in values.items():
        _check(name, value, known)
    return Endpoint(**values)


def _check(name: str, value: object, known: set[str]) -> None:
    if name not in known:
        raise _bad_setting(name, value, f"one of {', '.join(sorted(known))}")
    if name in _TEXTS:
        if not isinstance(value, str) or not value.strip() or (name == "api" and value not in APIS):
            raise _bad_setting(name, value, f"one of {', '.join(APIS)}" if name == "api" else "a text")
        if name == "url" and not _is_http(value):
            raise _bad_setting(name, value, "an address that begins with http:// or https://")
    elif not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**20:
        raise _bad_setting(name, value, "a whole number")
    elif value == 0 and name in {"context", "timeout"}:
        raise _bad_setting(name, value, "a whole number above 0")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _no_description(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(found, dict):
        raise _no_description(path, "it is no mapping")
    return found


def _no_description(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{path.name} does not describe an endpoint: {problem}.",
        why="A served model is reached by its address.",
        fix=f"write a file with `schema: {SCHEMA}`, `url: http://HOST:PORT/v1` and `model: NAME`",
    )


def _bad_setting(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"An endpoint does not take {name}={value!r}.",
        why="A setting that is silently ignored makes two sides incomparable.",
        fix=f"use {wanted}",
    )
