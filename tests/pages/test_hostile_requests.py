"""What anybody may send to /quantgov/: one clear answer below 500, nothing recorded, nothing run."""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hostile import TEXTS, gated_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

CHECK = "/quantgov/api/check"
GOOD = {"name": "chat", "version": "1", "to": "@champion"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path
) -> Iterator[Any]:
    """One gated store for all these tests: none of them changes more of it than its ledger."""
    folder = tmp_path_factory.mktemp("hostile")
    if request.param == "postgres":
        uri = request.getfixturevalue("new_postgres_database")()
    else:
        uri = f"sqlite:///{shutil.copy(_mlflow_tables, folder / 'mlflow.db')}"
    yield from gated_store(uri, folder)


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()


def said(answer: Any) -> dict[str, str]:
    """The error of an answer, which has to be whole."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    problem: dict[str, str] = answer.get_json()["error"]
    assert {"message", "why", "fix"} <= set(problem) <= {"message", "why", "fix", "exit_code"} and all(problem.values())
    assert len(problem["message"]) < 1000
    return problem


def sent(app: Flask, environ: dict[str, Any]) -> TestResponse:
    """The answer to a request exactly as it stands; a client would mend it first."""
    content, status, headers = run_wsgi_app(app, environ, buffered=True)
    return TestResponse(content, status, headers, Request(environ))


BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "not UTF-8": b'{"name": "\xff\xfe", "version": "1", "to": "@champion"}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "a key twice": b'{"name": "chat", "name": "chat", "version": "1", "to": "@champion"}',
    "NaN": b'{"name": NaN, "version": "1", "to": "@champion"}',
    "a number of 10,000 digits": b'{"name": ' + b"9" * 10_000 + b', "version": "1", "to": "@champion"}',
    "a number beyond 64 bit": b'{"name": "chat", "version": 99999999999999999999, "to": "@champion"}',
    "digits beyond 64 bit": b'{"name": "chat", "version": "99999999999999999999", "to": "@champion"}',
    "a number that is none": '{"name": "chat", "version": "²", "to": "@champion"}'.encode(),
    "NUL in a name": b'{"name": "ch\\u0000at", "version": "1", "to": "@champion"}',
    "NUL in a destination": b'{"name": "chat", "version": "1", "to": "@cham\\u0000pion"}',
    "half a character": b'{"name": "\\ud800", "version": "1", "to": "@champion"}',
    "a longer name than any": b'{"name": "' + b"a" * 20_000 + b'", "version": "1", "to": "@champion"}',
    "an unknown key": b'{"name": "chat", "version": "1", "to": "@champion", "polic\\u001by": ""}',
    "nested": b'{"name": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_is_wrong_is_one_clear_error(browser: FlaskClient, store: Any, kind: str) -> None:
    rows = len(store.quantgov_ledger())
    for path in ("check", "statements", "draws"):
        said(browser.post(f"/quantgov/api/{path}", data=BODIES[kind], content_type="application/json"))
    assert len(store.quantgov_ledger()) == rows


def test_half_a_character_in_a_statement_is_refused(browser: FlaskClient) -> None:
    body = b'{"name": "chat", "version": "1", "statement": "\\ud800"}'
    said(browser.post("/quantgov/api/statements", data=body, content_type="application/json"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {},
    ],
)
def test_nothing_but_plain_json_is_read(browser: FlaskClient, headers: dict[str, str]) -> None:
    data = json.dumps(GOOD).encode()
    packed = gzip.compress(data) if "Content-Encoding" in headers else data
    answer = browser.post(CHECK, data=packed, headers=headers)
    said(answer)
    assert answer.status_code == 415


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}])
@pytest.mark.parametrize("path", ["check", "statements", "draws"])
def test_a_page_of_another_site_can_make_a_browser_do_nothing(
    browser: FlaskClient, store: Any, headers: dict[str, str], path: str
) -> None:
    rows = len(store.quantgov_ledger())
    answer = browser.post(f"/quantgov/api/{path}", json=GOOD, headers=headers)
    said(answer)
    assert answer.status_code == 403 and len(store.quantgov_ledger()) == rows


def test_this_servers_own_pages_may_ask(browser: FlaskClient) -> None:
    for origin in ("http://localhost", "http://127.0.0.1:5000"):
        assert browser.post(CHECK, json=GOOD, headers={"Origin": origin}).status_code == 200


def test_a_body_in_chunks_without_a_length_is_read_no_further_than_the_bound(app: Flask) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = b"a" * len(buffer)
            self.given += len(buffer)
            return len(buffer)

    body = Endless()
    environ = EnvironBuilder(CHECK, method="POST", content_type="application/json").get_environ()
    environ |= {"wsgi.input": body, "wsgi.input_terminated": True}
    environ.pop("CONTENT_LENGTH", None)
    answer = sent(app, environ)
    said(answer)
    assert answer.status_code == 413 and body.given < 10_000_000


@pytest.mark.parametrize("length", ["999999999999", "-1", "x", "1e9", "99999999999999999999999"])
def test_a_length_that_is_wrong_is_believed_by_nobody(app: Flask, length: str) -> None:
    data = json.dumps(GOOD).encode()
    environ = EnvironBuilder(CHECK, method="POST", data=data, content_type="application/json").get_environ()
    environ["CONTENT_LENGTH"] = length
    said(sent(app, environ))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "X" * 300])
def test_a_wrong_method_is_said_in_json_with_those_that_fit(browser: FlaskClient, method: str) -> None:
    answer = browser.open(CHECK, method=method)
    said(answer)
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["", "none", "decisions/", "ledger/none", "../api", "check/", "decisions/a%00b"])
def test_an_unknown_address_of_the_api_is_said_in_json(browser: FlaskClient, path: str) -> None:
    said(browser.get(f"/quantgov/api/{path}"))


@pytest.mark.parametrize(
    "limit", ["-1", "x", "", "²", "1.5", "9" * 5000, "1e3", "٣" * 40, "%00", "0x10", "99999999999999999999"]
)
def test_a_limit_that_is_no_number_is_refused(browser: FlaskClient, limit: str) -> None:
    said(browser.get(f"/quantgov/api/ledger?limit={limit}"))


def test_a_limit_is_cut_to_what_is_given_at_most(browser: FlaskClient) -> None:
    assert browser.get("/quantgov/api/ledger?limit=999999999").status_code == 200
    assert browser.get("/quantgov/api/ledger?limit=0").get_json() == {"rows": []}
    said(browser.get("/quantgov/api/ledger?model=a%00b"))


PATHS = ["models/{}", "models/{}/versions/1", "models/chat/versions/{}", "decisions/{}", "{}", "ledger/{}"]


def asks_a_page(browser: FlaskClient, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.mimetype == "text/html" and 'href="/quantgov/"' in answer.text
        assert "<script" not in answer.text and "<img" not in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_no_address_of_a_page_is_a_defect(browser: FlaskClient, path: str) -> None:
    for text in (*TEXTS, "\0", "a\0b", "..", "%", "9" * 5000, "-1", "99999999999999999999", "²", " 1", "1\n"):
        asks_a_page(browser, f"/quantgov/{path.format(quote(text, safe=''))}")
    for raw in ("%ff%fe", "%ed%a0%80", "%c0%80", "%", "%zz", "a" * 60_000):
        asks_a_page(browser, f"/quantgov/{path.format(raw)}")
    asks_a_page(browser, "/quantgov/?" + "a=b&" * 10_000)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.text(), st.sampled_from(PATHS))
def test_no_text_in_an_address_is_a_defect(browser: FlaskClient, text: str, path: str) -> None:
    asks_a_page(browser, f"/quantgov/{path.format(quote(text.encode('utf-8', 'replace'), safe=''))}")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from([*GOOD, "statement", "x"]), st.text() | st.integers() | st.none() | st.just("1"))
)
def test_no_body_is_a_defect(browser: FlaskClient, body: dict[str, Any]) -> None:
    for path in ("check", "statements", "draws"):
        answer = browser.post(f"/quantgov/api/{path}", json=body)
        if answer.status_code != 200:
            said(answer)


def test_whatever_a_user_is_called_a_refusal_is_recorded(app: Flask, store: Any) -> None:
    for text in TEXTS:
        credentials = base64.b64encode(f"{text}\0:x".encode()).decode()
        signed_in = app.test_request_context("/", headers={"Authorization": f"Basic {credentials}"})
        with signed_in, pytest.raises(MlflowException):
            store.set_registered_model_alias("chat", "champion", "1")
        actor = store.quantgov_ledger("chat")[0]["actor"]
        assert actor.isprintable() and len(actor) <= 300 and actor != "anonymous"
    assert store.quantgov_verify().ok


def test_browsers_are_told_to_run_nothing_and_to_frame_as_mlflow_is_framed(browser: FlaskClient) -> None:
    for path in ("", "models/chat", "models/chat/versions/1", "none", "api/status", "api/none"):
        headers = browser.get(f"/quantgov/{path}").headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "script-src" not in policy
        assert "frame-ancestors 'self'" in policy and headers["X-Frame-Options"] == "SAMEORIGIN"
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


def test_a_frame_is_allowed_where_mlflow_allows_it(browser: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_X_FRAME_OPTIONS", "NONE")
    assert "frame-ancestors" not in browser.get("/quantgov/").headers["Content-Security-Policy"]
    monkeypatch.setenv("MLFLOW_SERVER_X_FRAME_OPTIONS", "deny")
    assert "frame-ancestors 'none'" in browser.get("/quantgov/").headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "localhost.evil.example", "a" * 5000, "[::1"])
def test_a_name_of_the_host_that_is_not_ours_leads_nowhere(browser: FlaskClient, host: str) -> None:
    answer = browser.get("/quantgov", headers={"Host": host})
    assert answer.status_code in {400, 403} and "Location" not in answer.headers


def test_no_redirect_names_a_host(browser: FlaskClient) -> None:
    for path in ("/quantgov", "/quantgov//models//chat", "/quantgov//evil.example/%2e%2e"):
        answer = browser.get(path)
        if 300 <= answer.status_code < 400:
            assert answer.headers["Location"].startswith("/quantgov/")
