"""An ASGI layer in front of MLflow's: that one keeps any body whole in memory, and knows no address with a line end in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from mlflow_quantgov.gate.doors.static_prefix import static_prefix
from mlflow_quantgov.pages.headers import is_ours
from mlflow_quantgov.pages.reading import RefusedRequestError, is_api, most_bytes, too_large

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
LINGER_BYTES = 64 << 20
"""How much of a refused request is still taken, and dropped, after the answer."""
LINGER_SECONDS = 5
"""How long it may take to come."""
_PAGE = '<!doctype html><html lang="en"><title>Not found</title><p>{} <a href="{}/quantgov/">All models</a></p></html>'


class BoundedBodies:
    """Answers 413 once a body is longer than it may be, and 404 to an address of two lines; all else passes as it is."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Stand in front of an app."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not is_ours(scope["path"]):
            await self.app(scope, receive, send)
            return
        if "\n" in scope["path"]:
            why = "Its address holds the end of a line."
            error = RefusedRequestError(404, "There is no such page.", why=why, fix="open /quantgov/")
            await _refuse(error, scope["path"], send)
            await _end(receive, send)
            return
        most = most_bytes(scope["path"])
        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = bool(message.get("more_body", False))
            if size > most:
                await _refuse(too_large(most), scope["path"], send)
                await _end(receive, send, more=more)
                return
        left = iter(messages)

        async def again() -> Message:
            kept = next(left, None)
            return await receive() if kept is None else kept

        await self.app(scope, again, send)


async def _refuse(error: RefusedRequestError, path: str, send: Send) -> None:
    """Answer in full; the connection stays until `_end`."""
    in_json = is_api(path)
    body = (
        json.dumps({"error": error.to_dict() | {"exit_code": error.exit_code}})
        if in_json
        else _PAGE.format(error.what, static_prefix())
    ).encode()
    headers = [
        (b"content-type", b"application/json" if in_json else b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"content-security-policy", b"default-src 'none'"),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end(receive: Receive, send: Send, *, more: bool = True) -> None:
    """Take the rest of a request, within bounds, and have the connection closed.

    Bytes that nobody read make the kernel reset a connection that is closed, and the answer may be lost with it: a person
    would see "connection reset" where the reason was told (RFC 9112, section 9.6).
    """
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = bool(message.get("more_body", False))
    await send({"type": "http.response.body", "body": b""})
