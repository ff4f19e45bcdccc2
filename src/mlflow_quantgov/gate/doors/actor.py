"""Who asks, and how that is known."""

from __future__ import annotations

import getpass
import os

from mlflow_quantgov.errors import visible

BASIC_AUTH = "basic-auth"
CUSTOM_AUTH = "authorization function"
VERIFIED = frozenset({BASIC_AUTH, CUSTOM_AUTH})
"""Sources by which somebody is known: MLflow's login was in front of this server, and let them in."""

LOGIN = "QUANTGOV_LOGIN"
"""Key of the app's configuration: the source by which a login in front of it knows who asks."""

_SIGNED_IN = "quantgov_signed_in"


def remember_signed_in(name: str, source: str) -> None:
    """Note for this request whose login was checked; only the app that stands behind the login calls this."""
    from flask import g

    setattr(g, _SIGNED_IN, (visible(name, keep="")[:300], source))


def current_actor() -> tuple[str, str]:
    """Name, and how it is known: one of `VERIFIED`, `http, not verified`, `http from ADDRESS`, `environment` or `os-user`.

    A name that a request carries is what its sender claims, unless the login in front of this server has checked it.
    """
    try:
        from flask import g, has_request_context, request
    except ImportError:
        return _local()
    if has_request_context():
        checked: tuple[str, str] | None = g.get(_SIGNED_IN)
        if checked is not None:
            return checked
        claimed = request.authorization
        if claimed is not None and claimed.username:
            return visible(claimed.username, keep="")[:300], "http, not verified"
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


def is_verified(actor_source: str | None) -> bool:
    """Whether a name is that of whoever asks, and not only what they say: see `current_actor`."""
    return actor_source in VERIFIED
