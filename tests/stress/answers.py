"""What a server may answer when something is wrong: a status, and one clear line."""

from __future__ import annotations

import json
from typing import Any

import requests

DECISIONS = {200, 400, 403, 404, 409}
BUSY = {429, 503}
"""What says: not now."""


def words(answer: requests.Response) -> str:
    """The message of an answer, in the form of MLflow's routes or of ours."""
    try:
        body: Any = json.loads(answer.text)
    except ValueError:
        return answer.text
    error = body.get("error", {}) if isinstance(body, dict) else {}
    if isinstance(error, dict) and error:
        return " ".join([str(error.get("message", "")), str(error.get("why", "")), f"Fix: {error.get('fix', '')}"])
    return str(body.get("message", answer.text)) if isinstance(body, dict) else answer.text


def wrong(answer: requests.Response) -> str | None:
    """What is wrong with an answer to a request that the database or the disk may have cut short; None where nothing is."""
    if answer.status_code == 200:
        return None
    said = words(answer)
    if answer.status_code not in DECISIONS | BUSY:
        return f"answered {answer.status_code}: {said[:300]!r}"
    if answer.status_code == 400 or answer.status_code in BUSY:
        return unclear(said)
    return unclear(said) if answer.status_code == 403 else None


def unclear(said: str) -> str | None:
    """What is wrong with a message; None where it is one clear line that says how to go on."""
    if any(sign in said for sign in ("\n", "Traceback", "[SQL", "sqlalche.me", "psycopg", "sqlite3", "Errno")):
        return f"not one clear line: {said[:300]!r}"
    return None if "Fix:" in said else f"no `Fix:`: {said[:300]!r}"
