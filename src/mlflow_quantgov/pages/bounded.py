"""An ASGI layer that reads no more of a request to us than the request may hold: MLflow's own keeps any body whole in memory."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from mlflow_quantgov.pages.headers import is_ours
from mlflow_quantgov.pages.reading import most_bytes, too_large

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BoundedBodies:
    """Answers 413 once a body is longer than it may be; other requests pass as they are."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Stand in front of an app."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not is_ours(scope["path"]):
            await self.app(scope, receive, send)
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
                await _refuse(most, send)
                return
        left = iter(messages)

        async def again() -> Message:
            kept = next(left, None)
            return await receive() if kept is None else kept

        await self.app(scope, again, send)


async def _refuse(most: int, send: Send) -> None:
    error = too_large(most)
    headers = [
        (b"content-type", b"application/json"),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error.to_dict()}).encode()})
