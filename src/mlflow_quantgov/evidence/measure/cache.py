"""Answers of earlier runs on this machine, so that a parent answers once for all of its quantized versions."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow_quantgov.evidence.measure.task_eval_runs import TaskRun

LAYOUT = 2
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
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def keep(self, run: TaskRun, limit: int | None) -> None:
        """Keep a run; its file appears whole or not at all."""
        path = self._path(run.task, limit)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.part")
        try:
            scratch.write_text(json.dumps(asdict(run)), encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def _path(self, task: str, limit: int | None) -> Path | None:
        if self._folder is None:
            return None
        key = json.dumps([LAYOUT, self._identity, task, limit], sort_keys=True, default=str)
        return self._folder / "answers" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
