"""Kills a gated MLflow server, or its database, in the midst of requests, and reads what is left.

    python -m tests.stress.kills --database postgresql --kills 1000
    python -m tests.stress.kills --database sqlite --sweep          # at every SQL statement of every request
    python -m tests.stress.kills --database postgresql --kills 200 --victim database

A server is killed at a random moment of its request: one third of the times uniformly over the usual duration, one third
within milliseconds of a random SQL statement, and one third within milliseconds of one of the last, among which the change
is written and committed, since most of the time is spent before that.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stress import answers, databases, reader, scene, serving
from tests.stress.scene import OPERATIONS, Scene
from tests.stress.serving import PHASES, RECORDED, Asking, Server

ANEW = 0.1
"""Share of servers that open their store again, as a new process would; one in two of them is killed while it does."""
ANSWERED = 4
LAST = 12
"""The statements and commits at the end of a request, among which its change is written and committed."""


@dataclass
class Result:
    """What was seen."""

    kills: int = 0
    by_moment: Counter[str] = field(default_factory=Counter)
    by_operation: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    victims: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, operation: str, phase: int, changed: bool) -> None:
        """Count one kill."""
        self.kills += 1
        self.by_moment[PHASES[phase]] += 1
        self.by_operation[operation][f"{PHASES[phase]}: {'there' if changed else 'not there'}"] += 1


class Run:
    """One registry, and servers that die."""

    def __init__(self, database: databases.Database, server: Server, built: Scene, seed: int) -> None:
        """Use a server whose app is built."""
        self.database, self.server, self.scene = database, server, built
        self.seed, self.random, self.result = seed, random.Random(seed), Result()
        self.usual: dict[str, tuple[float, int]] = {}
        self.tell: Callable[[], None] = lambda: None
        """Called after every kill."""

    def calibrate(self) -> None:
        """How long each request takes, and how many statements it has."""
        self._start()
        for name in OPERATIONS:
            for _ in range(2):
                asking = self._ask(self._make(name))
                asking.join()
                if asking.answer is None or asking.answer.status_code != (403 if name == "denial" else 200):
                    raise SystemExit(f"{name} does not work: {asking.answer and asking.answer.text}")
                self.usual[name] = (asking.seconds, self.server.marks.count)
        self.server.kill()

    def _make(self, name: str) -> scene.Request:
        """A request; versions to delete are made first where there are none, so read what is there afterwards."""
        return OPERATIONS[name](self.scene, self.server.call)

    def _ask(self, request: scene.Request, kill_at: int = 0) -> Asking:
        self.server.marks.set(armed=1, count=0, phase=0, kill_at=kill_at)
        return Asking(self.server, request)

    def _start(self, *, anew: bool = False) -> None:
        """A server that answers, and finds the chain whole."""
        self.server.start(anew=anew)
        asked = "ledger/verify" if self.result.kills % 10 == 0 else "status"  # the reader verifies the chain each time
        answer = self.server.call("GET", f"{scene.OURS}/{asked}", {})
        if answer.status_code != 200 or not answer.json().get("ok", True):
            self.result.problems.append(f"the server that was started again says {answer.text[:200]}")

    def _contents(self) -> reader.Contents:
        connection = self.database.connect()
        try:
            return reader.read(connection)
        finally:
            connection.close()

    def sweep(self) -> None:
        """Kill every request at every one of its statements and commits, from the first to the last."""
        for name in OPERATIONS:
            at = 1
            while True:
                self._start()
                request, before = self._make(name), self._contents()
                asking = self._ask(request, kill_at=at)
                asking.join()
                if asking.answer is not None:
                    self.server.kill()
                    break
                self.server.wait()
                self._judge(name, before, self.server.marks.phase, None)
                at += 1

    def at_random(self, kills: int) -> None:
        """Kill so many servers."""
        names = list(OPERATIONS)
        while self.result.kills < kills:
            anew = self.random.random() < ANEW
            if anew and self.random.random() < 0.5:
                self._kill_while_starting()
                continue
            self._start(anew=anew)
            self._kill_one(names[self.result.kills % len(names)])

    def _kill_one(self, name: str) -> None:
        request, before = self._make(name), self._contents()
        asking = self._ask(request)
        self._wait_for_the_moment(name, asking)
        answered = asking.is_over
        self.server.kill()
        asking.join()
        phase = ANSWERED if answered else self.server.marks.phase
        self._judge(name, before, phase, asking.answer)

    def _kill_while_starting(self) -> None:
        """A server that opens its store, and dies at one of the statements of that."""
        before = self._contents()
        self.server.start(anew=True, armed=True)
        time.sleep(self.random.uniform(0, 0.8))
        self.server.kill()
        self.result.victims["server, while it started"] += 1
        self._judge("start", before, min(self.server.marks.phase, RECORDED), None)

    def _wait_for_the_moment(self, name: str, asking: Asking) -> None:
        seconds, statements = self.usual[name]
        how = self.random.randrange(3)
        if how == 0:
            time.sleep(self.random.uniform(0, seconds * 1.1))
            return
        at = self.random.randint(1 if how == 1 else max(1, statements - LAST), statements)
        while self.server.marks.count < at and not asking.is_over:
            time.sleep(0.0002)
        time.sleep(self.random.uniform(0, 0.003))

    def _judge(self, name: str, before: reader.Contents, phase: int, answer: Any) -> None:
        """Read what is left, and compare it with what the server had come to and what it had answered."""
        now = self._contents()
        rows = now.ledger[len(before.ledger) :]
        changed = bool(rows)
        found = reader.problems(now)
        if now.ledger[: len(before.ledger)] != before.ledger:
            found.append("rows that were there have changed")
        if len([row for row in rows if row["kind"] != "stage-left"]) > 1:
            found.append(f"one request left {[row['kind'] for row in rows]}")
        if phase < RECORDED and changed:
            found.append(f"there are rows although nothing had been recorded when it was killed ({PHASES[phase]})")
        if phase > RECORDED and name != "start" and not changed:
            found.append(f"there is no row although it was killed {PHASES[phase]}")
        if not changed and (reader.pointers(now) != reader.pointers(before) or now.versions != before.versions):
            found.append("something changed without a row")
        if answer is not None and answer.status_code == 200 and name != "start" and not changed:
            found.append("it was answered with 200, and is not there")
        self.result.add(name, phase, changed)
        self.result.problems += [f"after kill {self.result.kills} ({name}): {one}" for one in found]
        self.tell()

    def against_the_database(self, kills: int) -> None:
        """End the server's connections, or crash the whole database, in the midst of requests; the server lives on."""
        assert isinstance(self.database, databases.Postgres)
        names = list(OPERATIONS)
        self._start()
        while self.result.kills < kills:
            name = names[self.result.kills % len(names)]
            request, before = self._make(name), self._contents()
            asking = self._ask(request)
            self._wait_for_the_moment(name, asking)
            crash = self.result.kills % 10 == 9
            phase = ANSWERED if asking.is_over else self.server.marks.phase
            if crash:
                self.database.crash()
            else:
                self.database.end_backends()
            self.result.victims["whole database" if crash else "connections"] += 1
            asking.join()
            self._judge_survivor(name, before, phase, asking.answer)

    def _judge_survivor(self, name: str, before: reader.Contents, phase: int, answer: Any) -> None:
        now = self._contents()
        changed = len(now.ledger) > len(before.ledger)
        self.result.add(name, phase, changed)
        found = reader.problems(now)
        if answer is None:
            found.append("the server did not answer")
        else:
            self.result.answers[str(answer.status_code)] += 1
            wrong = answers.wrong(answer)
            found += [wrong] if wrong else []
            if answer.status_code == 200 and not changed:
                found.append("it was answered with 200, and is not there")
        again = self._ask(self._make(name))
        again.join()
        if again.answer is None or again.answer.status_code not in {200, 403, 404}:
            found.append(f"asked again it says {again.answer and again.answer.text[:200]!r}")
        self.result.problems += [f"after {self.result.kills} ({name}, {PHASES[phase]}): {one}" for one in found]
        self.tell()


def run(
    kind: str, kills: int, victim: str, *, sweep: bool, seed: int, folder: Path, told: Path | None = None
) -> dict[str, Any]:
    """Kill, and say what was seen; a file is told it all the while, so that nothing is lost where this is ended early."""
    begun = time.monotonic()
    with databases.opened(kind, folder) as database:
        built = scene.build(database.uri, folder)
        with serving.serving(database.uri, folder) as server:
            one = Run(database, server, built, seed)

            def summary() -> dict[str, Any]:
                mode = "sweep" if sweep else f"at random, the {victim}"
                return (
                    {"database": kind, "mode": mode} | _summary(one) | {"seconds": round(time.monotonic() - begun, 1)}
                )

            if told is not None:
                one.tell = lambda: None if one.result.kills % 10 else _write(told, summary())
            one.calibrate()
            if sweep:
                one.sweep()
            elif victim == "database":
                one.against_the_database(kills)
            else:
                one.at_random(kills)
            return summary()


def _write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1))


def _summary(one: Run) -> dict[str, Any]:
    found, seconds = one.result, {name: round(usual[0], 3) for name, usual in one.usual.items()}
    return {
        "kills": found.kills,
        "problems": found.problems,
        "by_moment": {name: found.by_moment[name] for name in PHASES},
        "by_operation": {name: dict(counts) for name, counts in found.by_operation.items()},
        "victims": dict(found.victims),
        "answers": dict(found.answers),
        "statements_of_a_request": {name: usual[1] for name, usual in one.usual.items()},
        "seconds_of_a_request": seconds,
        "seed": one.seed,
    }


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=databases.KINDS, default="sqlite")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--victim", choices=("server", "database"), default="server")
    parser.add_argument("--sweep", action="store_true", help="at every statement of every request instead of at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write everything that was seen")
    given = parser.parse_args()
    if given.victim == "database" and given.database != "postgresql":
        parser.error("SQLite has no server that could be killed")
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        found = run(
            given.database,
            given.kills,
            given.victim,
            sweep=given.sweep,
            seed=given.seed,
            folder=Path(folder) / "run",
            told=given.json,
        )
    if given.json:
        _write(given.json, found)
    moments = "; ".join(f"{count} {name}" for name, count in found["by_moment"].items())
    print(
        f"{found['database']}, {found['mode']}: {found['kills']} kills in {found['seconds']} s, "
        f"{len(found['problems'])} problems ({moments})"
    )
    for problem in found["problems"][:20]:
        print(f"  {problem}")
    raise SystemExit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
