"""Many clients promote, check and read at once, against `quantgov server` with several workers.

python -m tests.stress.load --database postgresql --clients 50 --seconds 60 --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from tests.stress import answers, databases, reader, scene

MIX: dict[str, tuple[int, Callable[[random.Random], scene.Request]]] = {
    "read a model": (30, lambda at: ("GET", f"{scene.API}/registered-models/get?name=chat", {}, "ada")),
    "read the ledger": (10, lambda at: ("GET", f"{scene.OURS}/ledger?limit=20", {}, "ada")),
    "check": (
        25,
        lambda at: ("POST", f"{scene.OURS}/check", {"name": "chat", "version": "2", "to": "@champion"}, "ada"),
    ),
    "promote a good version": (15, lambda at: scene.alias("chat", at.choice("23"))),
    "promote another model": (15, lambda at: scene.alias("iris", "1")),
    "promote what nobody measured": (5, lambda at: scene.alias("other", "1")),
}
"""Weight of each request, and what makes one."""
START_SECONDS = 180


@contextmanager
def serving(database: str, folder: Path, workers: int) -> Iterator[str]:
    """The server as anybody starts it."""
    from mlflow_quantgov.demo.server import free_port

    url = f"http://127.0.0.1:{free_port()}"
    command = [
        *(sys.executable, "-m", "mlflow_quantgov", "server", "--backend-store-uri", database),
        *("--artifacts-destination", str(folder / "artifacts"), "--workers", str(workers)),
        *("--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1]),
    ]
    environment = os.environ | {"QUANTGOV_CACHE": str(folder / "cache"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(f"{url}/quantgov/api/status", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit((folder / "server.log").read_text()[-2000:]) from None
                time.sleep(0.3)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


class Clients:
    """Threads that ask one thing after the other."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet."""
        self._url = url
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, clients: int, seconds: float) -> float:
        """Ask from so many at once; returns how long it took until the last was answered."""
        begun = time.monotonic()
        threads = [threading.Thread(target=self._one, args=(number, begun + seconds)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - begun

    def _one(self, number: int, until: float) -> None:
        at, session = random.Random(number), requests.Session()
        names, weights = list(MIX), [weight for weight, _ in MIX.values()]
        while time.monotonic() < until:
            name = at.choices(names, weights)[0]
            method, path, body, actor = MIX[name][1](at)
            begun = time.monotonic()
            try:
                answer = session.request(
                    method, f"{self._url}{path}", json=body or None, auth=(actor, "x"), timeout=120
                )
            except requests.RequestException as error:
                self.problems.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
                continue
            self.seconds[name].append(time.monotonic() - begun)
            self.statuses[f"{name}: {answer.status_code}"] += 1
            expected = 403 if name == "promote what nobody measured" else 200
            if answer.status_code != expected:
                self.problems.append(f"{name}: {answer.status_code}: {answers.words(answer)[:200]}")


def run(kind: str, clients: int, seconds: float, workers: int, folder: Path) -> dict[str, Any]:
    """Load a server, and say how it did."""
    with databases.opened(kind, folder) as database:
        scene.build(database.uri, folder)
        with serving(database.uri, folder, workers) as url:
            warm = Clients(url)
            warm.run(4, min(5.0, seconds))
            loaded = Clients(url)
            took = loaded.run(clients, seconds)
        connection = database.connect()
        found = reader.read(connection)
        connection.close()
    every = sorted(one for many in loaded.seconds.values() for one in many)
    return {
        "database": kind,
        "clients": clients,
        "workers": workers,
        "cores": os.cpu_count(),
        "requests": len(every),
        "seconds": round(took, 1),
        "requests_per_second": round(len(every) / took, 1),
        "all": _percentiles(every),
        "by_request": {name: _percentiles(sorted(loaded.seconds[name])) for name in MIX},
        "statuses": dict(sorted(loaded.statuses.items())),
        "ledger_rows": len(found.ledger),
        "problems": warm.problems + loaded.problems + reader.problems(found),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if not seconds:
        return {"count": 0}
    at = {f"p{share}": seconds[min(len(seconds) - 1, len(seconds) * share // 100)] for share in (50, 90, 99)}
    return {"count": len(seconds)} | {name: round(1000 * one, 1) for name, one in at.items()}


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=databases.KINDS, default="postgresql")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write everything that was seen")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        found = run(given.database, given.clients, given.seconds, given.workers, Path(folder) / "run")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    print(
        f"{found['database']}: {found['requests']} requests of {found['clients']} clients in {found['seconds']} s "
        f"({found['requests_per_second']} a second; p50 {found['all'].get('p50')} ms, p99 {found['all'].get('p99')} ms; "
        f"{found['workers']} workers, {found['cores']} cores), {len(found['problems'])} problems"
    )
    for problem, count in Counter(found["problems"]).most_common(20):
        print(f"  {count} times {problem}")
    raise SystemExit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
