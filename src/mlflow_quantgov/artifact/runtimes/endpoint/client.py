"""JSON over HTTP to an OpenAI-compatible server, with one clear error for whatever it does instead of answering."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from mlflow_quantgov.artifact.runtimes.endpoint.description import Endpoint
from mlflow_quantgov.errors import QuantgovError, UnreachableError, UsageError

MAX_ANSWER_BYTES = 256 * 1024 * 1024
FIRST_PAUSE = 0.5
"""Seconds before the first retry; each further one waits twice as long."""
_AGAIN = {408, 429, 500, 502, 503, 504}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is sent to the address that was named, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing; the answer becomes an error."""


class Client:
    """Asks one endpoint.

    Args:
        endpoint: Where it is, which key, how long to wait.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._key = endpoint.key()
        self._opener = urllib.request.build_opener(_NoRedirect)

    def get(self, path: str) -> dict[str, Any]:
        """A JSON object.

        Raises:
            UnreachableError: No connection, an error page, or no JSON object.
        """
        return self._object(path, self._ask(path, None))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a JSON request.

        Raises:
            UnreachableError: No connection, an error page, or no JSON object.
            UsageError: The server refuses the request itself (4xx).
        """
        return self._object(path, self._ask(path, body))

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
        """Events of a streamed answer with the time of their arrival (`time.perf_counter`).

        Raises:
            UnreachableError: No connection, an error page, or an event that is no JSON object.
            UsageError: The server refuses the request itself (4xx).
        """
        try:
            with self._opener.open(self._request(path, body), timeout=self._endpoint.timeout) as answer:
                for line in answer:
                    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                        continue
                    yield time.perf_counter(), self._object(path, line[5:])
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(path, error) from error

    def _ask(self, path: str, body: dict[str, Any] | None) -> bytes:
        pause = FIRST_PAUSE
        for attempt in range(self._endpoint.retries + 1):
            try:
                with self._opener.open(self._request(path, body), timeout=self._endpoint.timeout) as answer:
                    content: bytes = answer.read(MAX_ANSWER_BYTES + 1)
                if len(content) > MAX_ANSWER_BYTES:
                    raise self._nonsense(path, f"more than {MAX_ANSWER_BYTES // 2**20} MB")
                return content
            except (OSError, http.client.HTTPException) as error:
                final = isinstance(error, urllib.error.HTTPError) and error.code not in _AGAIN
                if final or attempt == self._endpoint.retries:
                    raise self._failed(path, error) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the loop returns or raises")

    def _request(self, path: str, body: dict[str, Any] | None) -> urllib.request.Request:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        # `Endpoint` lets only http and https through.
        return urllib.request.Request(self._endpoint.public_url + path, data=data, headers=headers)  # noqa: S310

    def _object(self, path: str, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            kind = "HTML" if content.lstrip()[:1] == b"<" else f"something that is not JSON ({content[:40]!r})"
            raise self._nonsense(path, kind) from error
        if not isinstance(found, dict):
            raise self._nonsense(path, f"JSON that is no object ({content[:40]!r})")
        if found.get("error"):
            raise self._nonsense(path, f"an error: {_message(found)}")
        return found

    def _failed(self, path: str, error: Exception) -> QuantgovError:
        """What a failed request means."""
        where = f"{self._endpoint.public_url}{path}"
        if isinstance(error, urllib.error.HTTPError):
            said = _error_text(error)
            if error.code in _AGAIN:
                return self._down(f"{where} answers {error.code}: {said}")
            fix = "check `url`, `model` and `api` in the endpoint's description"
            if error.code in {401, 403}:
                fix = "name the variable that holds the key: `api_key_env: VARIABLE`"
            return UsageError(
                f"{where} refuses the request ({error.code}): {said}.", why="Nothing was measured.", fix=fix
            )
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            return self._down(f"{where} did not answer within {self._endpoint.timeout} seconds")
        reason = getattr(error, "reason", None) or error or type(error).__name__
        return self._down(f"{where} cannot be reached: {' '.join(str(reason).split())[:200] or type(error).__name__}")

    def _down(self, what: str) -> UnreachableError:
        return UnreachableError(f"{what}.", why="Nothing was measured.", fix=f"curl {self._endpoint.public_url}/models")

    def _nonsense(self, path: str, kind: str) -> UnreachableError:
        return UnreachableError(
            f"{self._endpoint.public_url}{path} answers with {kind}, not as an OpenAI-compatible server does.",
            why="Nothing was measured.",
            fix=f"curl {self._endpoint.public_url}/models, and let `url` end where /models begins (often /v1)",
        )


def _error_text(error: urllib.error.HTTPError) -> str:
    """What an error page says, in one short line."""
    try:
        content = error.read(4096)
    except (OSError, http.client.HTTPException):
        content = b""
    try:
        return _message(json.loads(content))
    except (ValueError, RecursionError):
        return str(error.reason)[:200]


def _message(answer: Any) -> str:
    """The message inside an OpenAI-style error."""
    found = answer.get("error", answer) if isinstance(answer, dict) else answer
    found = found.get("message", found) if isinstance(found, dict) else found
    return " ".join(str(found).split())[:200]
