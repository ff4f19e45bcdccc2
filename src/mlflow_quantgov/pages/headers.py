"""What a browser is told about our pages: no script, nothing from elsewhere, framed as MLflow itself is."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache

from flask import Response, request

from mlflow_quantgov.gate.doors.static_prefix import below
from mlflow_quantgov.pages.render import render

PREFIX = "/quantgov"
_FRAMES = {"SAMEORIGIN": "'self'", "DENY": "'none'"}


def is_ours(path: str) -> bool:
    """Whether a path is one of ours, with the server's own prefix or without."""
    return below(path) == PREFIX or below(path).startswith(f"{PREFIX}/")


@cache
def content_policy() -> str:
    """The content security policy: the one style sheet by its digest, and nothing that runs or is fetched."""
    style = base64.b64encode(hashlib.sha256(render("style.css").encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{style}'; img-src 'self'; base-uri 'none'; form-action 'none'"


def secure(response: Response) -> Response:
    """Add the headers to an answer of ours."""
    if not is_ours(request.path):
        return response
    frames = _FRAMES.get(os.environ.get("MLFLOW_SERVER_X_FRAME_OPTIONS", "SAMEORIGIN").upper())
    policy = content_policy() + (f"; frame-ancestors {frames}" if frames else "")
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
