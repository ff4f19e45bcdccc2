"""Answers of earlier runs on this machine: whole tasks, and single batches of a run that was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun

LAYOUT = 3
"""Raised whenever what is kept, or how a prompt is made, changes."""


class AnswerCache:
    """Keeps runs by what decided their answers: weights, task files, runtime with version and settings.

    A run without a limit also serves any limit. A file that does not read is taken for absent.

    Args:
        folder: Where to keep them; None keeps nothing.
        identity: Whatever decided the answers, in JSON types.
    """

    def __init__(self, folder: Path | None, identity: list[Any]) -> None:
        self._folder = folder
        self._identity = identity

    def find(self, task: str, limit: int | None) -> TaskRun | None:
        """An earlier run of a task, cut to the first `limit` items; None where there is none."""
        for made_with in dict.fromkeys((limit, None)):
            path = self._path(task, made_with)
            if path is None or not path.is_file():
                continue
            try:
                return TaskRun.from_dict(json.loads(path.read_text(encoding="utf-8"))).first(limit)
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
        return None

    def keep(self, run: TaskRun, limit: int | None) -> None:
        """Keep a run; its file appears whole or not at all."""
        path = self._path(run.task, limit)
        if path is not None:
            _write(path, asdict(run))

    def _path(self, task: str, limit: int | None) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / "answers" / f"{key_of([LAYOUT, self._identity, task, limit])}.json"


class BatchCache:
    """Keeps every batch as soon as it is answered, so that a run that was killed goes on where it stopped.

    A batch is known by all that was asked in it: answers may depend on their neighbours in the last digit, so only the
    very same batch is taken again, and a run in two parts answers as one run does.

    Args:
        folder: Where to keep them; None keeps nothing.
        identity: Whatever decides an answer beside the prompts, in JSON types.
        oldest: Age in seconds from which a batch is asked again; None keeps it until the run is done.
    """

    def __init__(self, folder: Path | None, identity: list[Any], oldest: float | None = None) -> None:
        self._folder = folder / "batches" / key_of([LAYOUT, identity]) if folder is not None else None
        self._oldest = oldest
        self.asked = 0
        """Requests that were answered now."""
        self.is_asking = False
        """Whether a batch is being answered now."""
        self.taken = 0
        """Requests whose answers came from a run that was stopped."""

    def answer(self, kind: str, asked: list[Any], ask: Callable[[], list[Any]]) -> list[Any]:
        """Answers to one batch, in JSON types.

        Args:
            kind: What is asked for (`generate`, `score`, `rolling`).
            asked: Each request, in JSON types.
            ask: Asks the model.
        """
        path = self._folder / f"{key_of([kind, asked])}.json" if self._folder is not None else None
        if path is not None and (kept := self._read(path, len(asked))) is not None:
            self.taken += len(asked)
            return kept
        self.is_asking = True
        try:
            answers = ask()
        finally:
            self.is_asking = False
        self.asked += len(asked)
        if path is not None:
            _write(path, answers)
        return answers

    def clear(self) -> None:
        """Forget the batches, once the tasks that they belong to are kept whole."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, path: Path, count: int) -> list[Any] | None:
        try:
            if self._oldest is not None and time.time() - path.stat().st_mtime > self._oldest:
                return None
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, list) and len(found) == count else None


def key_of(parts: Sequence[Any]) -> str:
    """Name under which what follows from some JSON values is kept."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A scratch file that becomes the file at the end: it appears whole or not at all, whenever the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.part")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _write(path: Path, value: Any) -> None:
    with appearing(path) as scratch:
        scratch.write_text(json.dumps(value), encoding="utf-8")
