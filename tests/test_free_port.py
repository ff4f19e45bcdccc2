"""A port that was found free stays so until the server that it is for listens on it."""

from __future__ import annotations

import socket
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from mlflow_quantgov.demo.server import free_port


def test_a_port_is_given_to_nobody_else_and_a_server_may_listen_on_it() -> None:
    port = free_port()
    assert port != free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with HTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler), socket.create_connection(("127.0.0.1", port)):
        pass
