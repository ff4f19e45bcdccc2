"""Takes from a gated MLflow server what it needs, asks it for everything meanwhile, and gives it back.

    python -m tests.stress.faults --database postgresql

While something is missing, every answer has to be a refusal or "not now" in one clear line (or what was asked, where it can
be done all the same); nothing may be half done; and once it is back, the same server has to serve again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.stress import answers, databases, reader, scene, serving
from tests.stress.scene import OPERATIONS
from tests.stress.serving import Asking

LOCKED_FOR_LONG = 60
"""Seconds: longer than anybody waits."""
SOME = ("promotion", "denial", "attach", "deletion")
"""What is asked where every answer takes its time."""
STORE = "object store stopped"
Fault = Callable[[], AbstractContextManager[None]]


class Faults:
    """One registry and one server, to which things happen."""

    def __init__(self, database: databases.Database, folder: Path, server: serving.Server, built: scene.Scene) -> None:
        """Use a server whose app is built."""
        self.database, self.folder, self.server, self.scene = database, folder, server, built
        self.seen: dict[str, dict[str, str]] = {}
        self.problems: list[str] = []

    def faults(self) -> dict[str, Fault]:
        """What can happen to this database."""
        found: dict[str, Fault] = {
            "files of the models gone": self._files_gone,
            "files of the models unreadable": self._files_broken,
            "database locked for two seconds": lambda: self._locked(2),
            "database locked for long": lambda: self._locked(LOCKED_FOR_LONG),
            "database read-only": self._read_only,
        }
        if isinstance(self.database, databases.Postgres):
            return found | {"database stopped": self._stopped, "database restarted": self._restarted}
        return found | {"disk full": self._disk_full, "database file gone": self._database_gone}

    def run(self, only: list[str]) -> None:
        """Let everything happen once."""
        for name, fault in self.faults().items():
            if only and name not in only:
                continue
            self._start(name)
            before = self._contents()
            self.seen[name] = {}
            with fault():
                for asked in SOME if name.startswith("database") else OPERATIONS:
                    self._ask(name, asked)
            now = self._contents()
            self._note(name, "afterwards", reader.problems(now))
            if now.ledger[: len(before.ledger)] != before.ledger:
                self._note(name, "afterwards", ["rows that were there have changed"])
            for asked in OPERATIONS:
                answer = self.server.call(*self._request(asked))
                expected = 403 if asked == "denial" else 200
                if answer.status_code != expected:
                    self._note(name, f"{asked}, once it was back", [f"{answer.status_code}: {answer.text[:300]!r}"])
            self._note(name, "once it was back", reader.problems(self._contents()))
            self.server.kill()
        if not only or STORE in only:
            self._object_store()

    def _object_store(self) -> None:
        """A good version whose files lie in S3, which answers, is stopped, and answers again."""
        self.seen[STORE] = {}
        with ObjectStore(self.folder) as store:
            store.start()
            version = store.fill(self.database.uri, next(self.folder.glob("logged-1")))
            self.server.start()
            for moment in ("it answers", "it is stopped", "it answers again"):
                if moment == "it is stopped":
                    store.stop()
                elif moment == "it answers again":
                    store.start()
                    store.upload(next(self.folder.glob("logged-1")))
                before = self._contents()
                asking = Asking(self.server, scene.alias("chat", version))
                asking.join()
                answer, now = asking.answer, self._contents()
                assert answer is not None
                said = f"{answer.status_code} after {asking.seconds:.1f} s: {answers.words(answer)[:300]}"
                self.seen[STORE][moment] = said
                wrong = answers.wrong(answer)
                found = reader.problems(now) + ([wrong] if wrong else [])
                moved = reader.pointers(now) != reader.pointers(before)
                if (answer.status_code == 200) != (moment != "it is stopped") or (moved and answer.status_code != 200):
                    found.append(said)
                self._note(STORE, moment, found)
            self.server.kill()

    def _start(self, name: str) -> None:
        self.server.start()
        self.server.call("GET", f"{scene.OURS}/status", {})
        for asked in ("promotion", "deletion"):  # there has to be something to remove, and something to delete
            self.server.call(*self._request(asked))

    def _request(self, asked: str) -> scene.Request:
        return OPERATIONS[asked](self.scene, self.server.call)

    def _ask(self, name: str, asked: str) -> None:
        before = self._rows()
        asking = Asking(self.server, self._request(asked))
        asking.join()
        answer = asking.answer
        if answer is None:
            self._note(name, asked, ["was not answered"])
            return
        self.seen[name][asked] = f"{answer.status_code} after {asking.seconds:.1f} s: {answers.words(answer)[:300]}"
        wrong = answers.wrong(answer)
        self._note(name, asked, [wrong] if wrong else [])
        after = self._rows()
        claims = answer.status_code in answers.BUSY and "nothing was changed" in answers.words(answer)
        if claims and None not in (before, after) and before != after:
            self._note(name, asked, ["it was said that nothing was changed, and there is a row"])

    def _rows(self) -> int | None:
        """How many rows the ledger has; None where nobody can read it now."""
        try:
            return len(self._contents().ledger)
        except Exception:
            return None

    def _contents(self) -> reader.Contents:
        connection = self.database.connect()
        try:
            return reader.read(connection)
        finally:
            connection.close()

    def _note(self, name: str, when: str, found: list[str]) -> None:
        self.problems += [f"{name} ({when}): {one}" for one in found]

    # What happens.

    @contextmanager
    def _files_gone(self) -> Iterator[None]:
        moved = [(path, path.with_name(f"gone-{path.name}")) for path in self.folder.glob("logged-*")]
        for path, there in moved:
            path.rename(there)
        yield
        for path, there in moved:
            there.rename(path)

    @contextmanager
    def _files_broken(self) -> Iterator[None]:
        """As after a disk error: the files are there, and cannot be read."""
        moved = [
            (path, path.with_name(f"whole-{path.name}"))
            for root in self.folder.glob("logged-*")
            for path in (root / "model").iterdir()
        ]
        for path, there in moved:
            path.rename(there)
            path.symlink_to("/proc/self/mem")  # reading it fails with an input/output error
        yield
        for path, there in moved:
            path.unlink()
            there.rename(path)

    @contextmanager
    def _locked(self, seconds: float) -> Iterator[None]:
        """Somebody else holds the locks: until they let go, or until everybody who asked has been told."""
        connection = self.database.connect()
        if self.database.kind == "sqlite":
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("LOCK TABLE quantgov_ledger, registered_models IN EXCLUSIVE MODE")
        free = threading.Event()

        def let_go() -> None:
            free.wait(seconds)
            connection.close()

        holder = threading.Thread(target=let_go)
        holder.start()
        yield
        free.set()
        holder.join()

    @contextmanager
    def _read_only(self) -> Iterator[None]:
        if isinstance(self.database, databases.Postgres):
            self._alter("on")
            yield
            self._alter("off")
            return
        self.database.path.chmod(0o444)
        self.server.kill()  # a file that is open stays writable
        self.server.start(bound=True)
        yield
        self.database.path.chmod(0o644)

    def _alter(self, read_only: str) -> None:
        assert isinstance(self.database, databases.Postgres)
        with self.database.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.commit()
            connection.execute(f"ALTER DATABASE postgres SET default_transaction_read_only = {read_only}")
        self.database.end_backends()

    @contextmanager
    def _disk_full(self) -> Iterator[None]:
        """No file of the server's may grow by another page; SQLite's journal is a file too."""
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        yield
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    @contextmanager
    def _database_gone(self) -> Iterator[None]:
        """The folder of the database file, as where a disk is no longer mounted."""
        assert isinstance(self.database, databases.Sqlite)
        folder = self.database.path.parent
        folder.rename(folder.with_name("gone"))
        yield
        folder.with_name("gone").rename(folder)

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        assert isinstance(self.database, databases.Postgres)
        self.database.stop()
        yield
        self.database.start()

    @contextmanager
    def _restarted(self) -> Iterator[None]:
        """Again and again, while it is asked."""
        assert isinstance(self.database, databases.Postgres)
        database, over = self.database, threading.Event()

        def restart() -> None:
            while not over.is_set():
                database.crash()
                over.wait(1.0)

        restarting = threading.Thread(target=restart)
        restarting.start()
        yield
        over.set()
        restarting.join()


class ObjectStore:
    """S3, as moto serves it, in a process of its own; what it holds is gone when it is stopped."""

    def __init__(self, folder: Path) -> None:
        """Choose an address."""
        from mlflow_quantgov.demo.server import free_port

        self._log, self._process = folder / "s3.log", None
        self._port = free_port()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
        }

    def __enter__(self) -> ObjectStore:
        """Not started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.1)
        raise SystemExit(f"moto did not start: {self._log.read_text()[-500:]}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def upload(self, root: Path) -> None:
        """Put a logged model there."""
        script = (
            "import sys, boto3, pathlib; root = pathlib.Path(sys.argv[1]); "
            "s3 = boto3.client('s3', endpoint_url=sys.argv[2]); "
            "s3.create_bucket(Bucket='models', CreateBucketConfiguration={'LocationConstraint': 'eu-central-1'}); "
            "[s3.upload_file(str(one), 'models', 'good/' + str(one.relative_to(root))) "
            "for one in root.rglob('*') if one.is_file()]"
        )
        subprocess.run([sys.executable, "-c", script, str(root), os.environ["MLFLOW_S3_ENDPOINT_URL"]], check=True)

    def fill(self, database: str, root: Path) -> str:
        """Put a logged model there, and register it as a version of `chat`."""
        self.upload(root)
        script = (
            "import sys; from mlflow_quantgov.gate.registry_store import open_store; "
            "print(open_store('quantgov:' + sys.argv[1]).create_model_version('chat', 's3://models/good').version)"
        )
        done = subprocess.run([sys.executable, "-c", script, database], check=True, capture_output=True, text=True)
        return done.stdout.split()[-1]


def run(kind: str, *, only: list[str], folder: Path) -> dict[str, Any]:
    """Let everything happen, and say what was seen."""
    begun = time.monotonic()
    with databases.opened(kind, folder / "run" / "database") as database:
        built = scene.build(database.uri, folder / "run")
        with serving.serving(database.uri, folder / "run") as server:
            faults = Faults(database, folder / "run", server, built)
            faults.run(only)
    return {
        "database": kind,
        "faults": len(faults.seen),
        "problems": faults.problems,
        "seen": faults.seen,
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=databases.KINDS, default="sqlite")
    parser.add_argument("--only", action="append", default=[], help="one fault, by its name in the JSON")
    parser.add_argument("--json", type=Path, help="where to write everything that was seen")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        found = run(given.database, only=given.only, folder=Path(folder))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    print(f"{found['database']}: {found['faults']} faults in {found['seconds']} s, {len(found['problems'])} problems")
    for problem in found["problems"][:30]:
        print(f"  {problem}")
    raise SystemExit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
