"""Who asks, and how that is known."""

from __future__ import annotations

import getpass
import os

from mlflow_quantgov.errors import visible


def current_actor() -> tuple[str, str]:
    """Name, and how it is known: `http, not verified`, `http from ADDRESS`, `environment` or `os-user`.

    A name that a request carries is what its sender claims: nothing in front of this server has checked a password.
    """
    try:
        from flask import has_request_context, request
    except ImportError:
        return _local()
    if has_request_context():
        signed_in = request.authorization
        if signed_in is not None and signed_in.username:
            return visible(signed_in.username, keep="")[:300], "http, not verified"
        return "anonymous", f"http from {request.remote_addr or 'unknown'}"[:40]
    return _local()


def _local() -> tuple[str, str]:
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if name:
        return visible(name, keep="")[:300], "environment"
    try:
        return visible(getpass.getuser(), keep="")[:300], "os-user"
    except (KeyError, OSError):
        return str(os.getuid()), "os-user"
