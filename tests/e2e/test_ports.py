"""The ports of servers that tests and the demo start: nobody else is given one between its choice and its use."""

from __future__ import annotations

import socket

import pytest

from mlflow_quantgov.demo.server import free_port


def test_a_free_port_is_kept_for_whoever_asks_for_it_by_number() -> None:
    port = free_port()
    with socket.socket() as anybody, pytest.raises(OSError, match="in use"):
        anybody.bind(("127.0.0.1", port))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        server.bind(("127.0.0.1", port))
        server.listen()
