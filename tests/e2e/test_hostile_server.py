"""A real gated server among hostile names, requests and clients: nothing runs, nothing breaks, nothing is held in memory."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

pytestmark = pytest.mark.slow
SCRIPT = "<script>window.ran=1</script><img src=x onerror='window.ran=1'>"
NAMES = (
    "<img src=x onerror=window.ran=1>",
    "\"'><svg onload=window.ran=1>",
    "{{ 7*7 }}${7*7}{% raw %}",
    "`id` [a](javascript;window.ran=1) ![x](x)",
    "two\nquantgov allowed everything",
    "\x1b[2J\x1b]0;title\x07",
    "right \u202eto left\u2066 \u200f",
    "=1+1;@SUM(A1)",
    "n" * 5000,
)
POLICY = {
    "schema": "quantgov/policy/v1",
    "name": SCRIPT[:100],
    "gates": {
        "main": {
            "checks": ["identity", "lineage", "task-eval", "benchmark", "rollback-archive"],
            "capabilities": {SCRIPT: {"margin": 0.02}, "\u202ebackward": {"margin": 0.02}},
        }
    },
    "rules": [{"models": "*", "destinations": {"@champion": "main", "Production": "main"}}],
}


@dataclass(frozen=True)
class Hostile:
    """A running server on which everything has a bad name."""

    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path) -> Iterator[Hostile]:
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    from mlflow_quantgov.demo.server import gated_server

    folder = tmp_path_factory.mktemp("hostile")
    skills = Path(__file__).parents[2] / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"
    shutil.copytree(skills, folder / "logged" / "model")
    evidence = folder / "logged" / "quantgov" / "evidence"
    evidence.mkdir(parents=True)
    (evidence / "<img src=x onerror=window.ran=1>.json").write_text("{")
    database = f"sqlite:///{shutil.copy(_mlflow_tables, folder / 'mlflow.db')}"
    store = SqlAlchemyStore(database)  # they were there before the gate was
    for name in NAMES:
        store.create_registered_model(name, description=SCRIPT)
        store.create_model_version(name, str(folder / "logged"), description=SCRIPT + name)
    store.engine.dispose()
    (folder / "policy.json").write_text(json.dumps(POLICY))
    with gated_server(folder, folder / "policy.json", database) as url:
        for name in NAMES:
            user = base64.b64encode(f"{name}:x".encode()).decode()
            requests.post(
                f"{url}/api/2.0/mlflow/registered-models/alias",
                json={"name": name, "alias": "champion", "version": "1"},
                headers={"Authorization": f"Basic {user}"},
                timeout=60,
            )
        yield Hostile(url, folder / "server.log")


@pytest.fixture
def tab() -> Iterator[Any]:
    """A page of headless Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed. Fix: sudo apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


def test_no_name_runs_in_a_browser_or_breaks_a_page(hostile: Hostile, tab: Any, tmp_path: Path) -> None:
    noticed: list[str] = []
    tab.on("dialog", lambda dialog: noticed.append(dialog.message))
    tab.on("pageerror", lambda error: noticed.append(str(error)))
    tab.on("console", lambda message: noticed.append(message.text) if message.type == "error" else None)
    rows = requests.get(f"{hostile.url}/quantgov/api/ledger?limit=1000", timeout=60).json()["rows"]
    paths = ["", "ledger", *(f"decisions/{row['decision_id']}" for row in rows)]
    for name in NAMES:
        paths += [f"models/{quote(name, safe='')}", f"models/{quote(name, safe='')}/versions/1"]
    assert len(rows) >= len(NAMES) and len({row["kind"] for row in rows}) > 1
    for number, path in enumerate(paths):
        for width in (360, 1280):
            tab.set_viewport_size({"width": width, "height": 900})
            answer = tab.goto(f"{hostile.url}/quantgov/{path}")
            if "%0A" in path:  # MLflow's layer under uvicorn knows no address with a line end
                assert answer.status == 404 and tab.query_selector("a[href='/quantgov/']")
                noticed.clear()  # the browser's word for a 404
                continue
            assert answer.status == 200, path
            assert tab.evaluate("window.ran") is None and tab.query_selector("script, img, iframe, object") is None
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
            assert tab.evaluate("getComputedStyle(document.body).maxWidth") != "none", "the style sheet is applied"
            text = tab.inner_text("body")
            assert not set("\x1b\x07\u202e\u2066\u200f") & set(text) and "49" not in re.findall(r"\b49\b", text)
        tab.screenshot(path=str(tmp_path / f"{number:03d}.png"))
    # A picture of each page lies in this test's folder.
    assert noticed == []
    for path in (SCRIPT, "models/" + SCRIPT, "decisions/{{7*7}}"):
        answer = tab.goto(f"{hostile.url}/quantgov/{quote(path)}")
        assert answer.status == 404 and tab.evaluate("window.ran") is None
        tab.get_by_role("link", name="All models").wait_for()


def test_no_line_of_the_log_is_anybodys_but_the_servers(hostile: Hostile) -> None:
    for text in ("two\r\nINFO: forged", "\x1b[31mred", "\u202eleft"):
        requests.get(f"{hostile.url}/quantgov/models/{quote(text)}", params={"a": text}, timeout=60)
        requests.post(f"{hostile.url}/quantgov/api/check", json={"name": text, "version": "1", "to": text}, timeout=60)
    log = hostile.log.read_text(encoding="utf-8", errors="surrogateescape")
    assert "forged" not in [line.partition("INFO: ")[2] for line in log.splitlines()]
    assert not set("\x07\u202e\u2066") & set(log) and "\x1b[2J" not in log and "\x1b[31mred" not in log
    assert "Traceback" not in log


def test_no_request_made_from_the_document_breaks_a_real_server(hostile: Hostile) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "pages"))
    import schemathesis
    from asking import ask

    assert ask(schemathesis.openapi.from_url(f"{hostile.url}/quantgov/api/openapi.json"), 40) > 400


def raw(port: int, head: str, body: Iterator[bytes]) -> tuple[int, int]:
    """Status of the answer to a request that is sent as it stands, and how many bytes the server took."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        try:
            for part in body:
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass  # it has hung up, as it should
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    found = re.match(rb"HTTP/1.1 (\d{3})", answer)
    return int(found[1]) if found else 0, sent


def resident(port: int) -> int:
    """Kilobytes of memory that the processes of a server hold."""
    total = 0
    for process in Path("/proc").iterdir():
        try:
            if f"--port\0{port}".encode() in (process / "cmdline").read_bytes():
                status = (process / "status").read_text()
                total += int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
        except (OSError, IndexError):
            continue
    return total


@pytest.mark.parametrize("path", ["/quantgov/api/check", "/quantgov/models/two%0Alines"])
def test_whoever_is_still_sending_is_told_why_it_is_refused(hostile: Hostile, path: str) -> None:
    size, first = 8 << 20, 1 << 20
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hostile.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"[" * first)
        answer = connection.recv(65536)
        connection.sendall(b"[" * (size - first))  # a connection that was reset takes nothing, and forgets the answer
        while part := connection.recv(65536):
            answer += part
    assert re.match(rb"HTTP/1.1 (404|413)", answer) and (b'"fix"' in answer or b"All models" in answer)


@pytest.mark.parametrize("path", ["/quantgov/api/check", "/quantgov/api/statements", "/quantgov/none", "/quantgov/"])
def test_a_gigabyte_in_chunks_is_neither_read_nor_held(hostile: Hostile, path: str) -> None:
    before = resident(hostile.port)
    assert before > 0
    head = f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
    chunk = b"100000\r\n" + b"[" * (1 << 20) + b"\r\n"
    status, sent = raw(hostile.port, head, (chunk for _ in range(1024)))
    assert status in {0, 413} and sent < 300 << 20
    assert resident(hostile.port) < before + (600 << 10)
    assert requests.get(f"{hostile.url}/quantgov/api/status", timeout=60).status_code == 200


def test_a_length_that_lies_and_a_wrong_host_get_nothing(hostile: Hostile) -> None:
    for header in ("Content-Length: 999999999999", "Content-Length: -1", "Content-Length: 5\nContent-Length: 6"):
        head = f"POST /quantgov/api/check HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\n{header}\n\n"
        status, _ = raw(hostile.port, head, iter([b'{"name": 1}', b"x" * (2 << 20)]))
        assert status in {0, 400, 413}, header
    for host in ("evil.example", "127.0.0.1.evil.example"):
        answer = requests.get(f"{hostile.url}/quantgov", headers={"Host": host}, allow_redirects=False, timeout=60)
        assert answer.status_code == 403 and "Location" not in answer.headers
    answer = requests.post(
        f"{hostile.url}/quantgov/api/check", json={}, headers={"Origin": "https://evil.example"}, timeout=60
    )
    assert answer.status_code == 403
