"""Several processes change the same registered model at once, and after each round plain SQL reads what came of it.

    python -m tests.stress.races --database postgresql --rounds 10000

Each process has a gated store and connections of its own. Every round is a contest over one model; who begins when differs
by a few milliseconds, at random.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.stress import answers, databases, reader, scene

WORKERS = 3
JITTER_SECONDS = 0.012
FRESH = 25
"""Rounds after which a contest goes on with a new model, so that its history stays short."""
POLICY = """
schema: quantgov/policy/v1
name: races
gates:
  bound: {checks: [lineage], lineage_level: structure}
rules:
  - models: "*"
    destinations: {"@champion": bound, "Production": bound}
"""
Ask = tuple[str, tuple[Any, ...]]
"""Method of the store and its arguments."""
OK = 0
"""Outcome of a call that did what was asked; every other outcome is a status of REST."""


@dataclass(frozen=True)
class Round:
    """What is asked at once, and what may not come of it together."""

    asks: tuple[Ask, ...]
    exclusive: tuple[tuple[int, int], ...] = ()
    """Pairs of which at most one may be let through."""
    must: tuple[int, ...] = ()
    """Who must be let through."""


class Worker:
    """A process with a store of its own."""

    def __init__(self, database: str, environment: dict[str, str]) -> None:
        """Start it."""
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(database, environment, theirs), daemon=True)
        self._process.start()

    def send(self, ask: Ask, at: float) -> None:
        """Ask, to be done at a time of `time.monotonic`."""
        self._pipe.send((at, *ask))

    def outcome(self) -> tuple[int, Any]:
        """Status and message, or `OK` and what was returned."""
        return self._pipe.recv()  # type: ignore[no-any-return]

    def now(self, method: str, *arguments: Any) -> tuple[int, Any]:
        """Ask alone."""
        self.send((method, arguments), 0.0)
        return self.outcome()

    def stop(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join(30)


def _work(database: str, environment: dict[str, str], pipe: Connection) -> None:
    import logging
    import os

    from mlflow.exceptions import MlflowException

    from mlflow_quantgov.errors import QuantgovError
    from mlflow_quantgov.gate.registry_store import open_store

    os.environ.update(environment)
    logging.disable(logging.CRITICAL)
    store = open_store(f"quantgov:{database}")
    while (asked := pipe.recv()) is not None:
        at, method, arguments = asked
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            found = getattr(store, method)(*arguments)
            pipe.send((OK, str(getattr(found, "version", ""))))
        except MlflowException as error:
            pipe.send((error.get_http_status_code(), str(error.message)))
        except QuantgovError as error:
            pipe.send((400, str(error)))
        except Exception as error:  # what a user would see as 500
            pipe.send((500, f"{type(error).__name__}: {error}"))


class Races:
    """Contests over models of one registry."""

    def __init__(self, database: databases.Database, workers: list[Worker], built: scene.Scene, seed: int) -> None:
        """Use processes that run."""
        self.database, self.workers, self.scene = database, workers, built
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.tell: Callable[[int], None] | None = None
        """Called with the number of rounds now and then."""
        self._names: dict[str, tuple[str, int]] = {}
        self._count = 0
        self.contests: dict[str, Callable[[], Round]] = {
            "promotion and deletion of the version": self._deletion,
            "promotions of the same alias": self._promotions,
            "promotion and rename": self._rename,
            "promotion and stages": self._stages,
            "promotion and removal of the alias": self._removal,
            "promotion and deletion of the model": self._model_deletion,
            "promotion and evidence": self._evidence,
        }

    def run(self, rounds: int, only: list[str]) -> None:
        """Run so many rounds, the contests in turn."""
        names = only or list(self.contests)
        for number in range(rounds):
            if self.tell is not None and number % 50 == 0:
                self.tell(number)
            contest = names[number % len(names)]
            made = self.contests[contest]()
            begin = time.monotonic() + 0.002
            for worker, ask in zip(self.workers, made.asks, strict=False):
                worker.send(ask, begin + self.random.uniform(0, JITTER_SECONDS))
            found = [worker.outcome() for worker, _ in zip(self.workers, made.asks, strict=False)]
            self._judge(number, contest, made, found)
        self._finish()

    def _judge(self, number: int, contest: str, made: Round, found: list[tuple[int, Any]]) -> None:
        wrong = []
        statuses = [status for status, _ in found]
        self.outcomes[contest][" ".join(str(status or "ok") for status in statuses)] += 1
        for (method, _), (status, said) in zip(made.asks, found, strict=True):
            if status not in {OK} | (answers.DECISIONS - {200}) or (status == 400 and "[SQL" in said):
                wrong.append(f"{method} ended with {status}: {str(said)[:300]!r}")
        wrong += [
            f"both {made.asks[one][0]} and {made.asks[other][0]} were let through"
            for one, other in made.exclusive
            if statuses[one] == statuses[other] == OK
        ]
        wrong += [f"{made.asks[one][0]} was refused: {found[one][1]!r}" for one in made.must if statuses[one] != OK]
        models = {str(ask[1][0]) for ask in made.asks} | {str(ask[1][1]) for ask in made.asks if "rename" in ask[0]}
        wrong += self._read(models)
        self.problems += [f"round {number} ({contest}): {one}" for one in wrong]

    def _read(self, models: set[str]) -> list[str]:
        """What does not agree in some models; the chain is verified at the end."""
        connection = self.database.connect()
        try:
            return reader.problems(reader.read(connection, models))
        finally:
            connection.close()

    def _finish(self) -> None:
        connection = self.database.connect()
        try:
            self.problems += [f"at the end: {one}" for one in reader.problems(reader.read(connection))]
        finally:
            connection.close()

    # The contests.

    def _model(self, contest: str, *, anew: bool = False) -> str:
        """A model of a contest, which is changed for a new one now and then."""
        name, used = self._names.get(contest, ("", FRESH))
        if anew or used >= FRESH:
            self._count += 1
            name, used = f"race-{self._count}", 0
            self._done(self.workers[0].now("create_registered_model", name))
            self._version(name)
        self._names[contest] = (name, used + 1)
        return name

    def _version(self, name: str) -> str:
        return str(self._done(self.workers[0].now("create_model_version", name, "models:/iris/1")))

    def _done(self, outcome: tuple[int, Any]) -> Any:
        if outcome[0] != OK:
            raise SystemExit(f"a contest could not be set up: {outcome[1]}")
        return outcome[1]

    def _deletion(self) -> Round:
        """By turns with another promotion, after which the version may go although it was let through."""
        name = self._model("deletion")
        version = self._version(name)
        promote = ("set_registered_model_alias", (name, "champion", version))
        deletion = ("delete_model_version", (name, version))
        other = ("set_registered_model_alias", (name, "champion", "1"))
        if self.random.random() < 0.5:
            return Round((promote, deletion), exclusive=((0, 1),))
        return Round((promote, deletion, other), must=(2,))

    def _promotions(self) -> Round:
        name = self._model("promotions")
        versions = ["1", self._version(name), self._version(name)]
        asks = tuple(("set_registered_model_alias", (name, "champion", one)) for one in versions)
        return Round(asks, must=(0, 1, 2))

    def _rename(self) -> Round:
        name = self._model("rename", anew=True)
        promote = ("set_registered_model_alias", (name, "champion", "1"))
        rename = ("rename_registered_model", (name, f"{name}-renamed"))
        return Round((promote, rename), exclusive=((0, 1),))

    def _stages(self) -> Round:
        name = self._model("stages")
        version = self._version(name)
        return Round(
            (
                ("set_registered_model_alias", (name, "champion", version)),
                ("transition_model_version_stage", (name, version, "Production", True)),
                ("transition_model_version_stage", (name, "1", "Production", True)),
            ),
            must=(0, 1, 2),
        )

    def _removal(self) -> Round:
        name = self._model("removal")
        return Round(
            (
                ("set_registered_model_alias", (name, "champion", "1")),
                ("delete_registered_model_alias", (name, "champion")),
                ("set_registered_model_alias", (name, "champion", self._version(name))),
            ),
            must=(0, 1, 2),
        )

    def _model_deletion(self) -> Round:
        name = self._model("model deletion", anew=True)
        promote = ("set_registered_model_alias", (name, "champion", "1"))
        return Round((promote, ("delete_registered_model", (name,))), exclusive=((0, 1),))

    def _evidence(self) -> Round:
        """The same new statement comes twice while the version that it is about is promoted."""
        body = scene.statement(self.scene)[2]
        take_in = ("quantgov_take_in", ("other", "1", body["statement"].encode()))
        promote = ("set_registered_model_alias", ("other", "champion", "1"))
        return Round((promote, take_in, take_in), must=(0, 1, 2))


def run(
    kind: str, rounds: int, *, seed: int, only: list[str], folder: Path, told: Path | None = None
) -> dict[str, Any]:
    """Race, and say what was seen; a file is told it all the while, so that nothing is lost where this is ended early."""
    with databases.opened(kind, folder) as database:
        built = scene.build(database.uri, folder)
        (folder / "policy.yaml").write_text(POLICY)
        environment = {"QUANTGOV_POLICY": str(folder / "policy.yaml"), "QUANTGOV_CACHE": str(folder / "cache")}
        workers = [Worker(database.uri, environment) for _ in range(WORKERS)]
        try:
            for worker in workers:
                worker.now("get_registered_model", "iris")
            races, begun = Races(database, workers, built, seed), time.monotonic()

            def summary(done: int) -> dict[str, Any]:
                return {"database": kind, "rounds": done} | _summary(races, seed, time.monotonic() - begun)

            if told is not None:
                races.tell = lambda done: _write(told, summary(done))
            races.run(rounds, only)
            return summary(rounds)
        finally:
            for worker in workers:
                worker.stop()


def _write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1))


def _summary(races: Races, seed: int, seconds: float) -> dict[str, Any]:
    return {
        "problems": races.problems,
        "outcomes": {name: dict(counts.most_common()) for name, counts in races.outcomes.items()},
        "processes": WORKERS,
        "seed": seed,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=databases.KINDS, default="sqlite")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--only", action="append", default=[], help="one contest, by its name in the JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write everything that was seen")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        found = run(
            given.database, given.rounds, seed=given.seed, only=given.only, folder=Path(folder) / "run", told=given.json
        )
    if given.json:
        _write(given.json, found)
    print(
        f"{found['database']}: {found['rounds']} rounds of {found['processes']} processes in {found['seconds']} s, "
        f"{len(found['problems'])} problems"
    )
    for problem in found["problems"][:20]:
        print(f"  {problem}")
    raise SystemExit(1 if found["problems"] else 0)


if __name__ == "__main__":
    main()
