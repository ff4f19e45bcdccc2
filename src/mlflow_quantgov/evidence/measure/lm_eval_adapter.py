"""Any of our runtimes as a model of lm-eval, and one quiet, offline run of it."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.errors import QuantgovError, UsageError, require
from mlflow_quantgov.evidence.measure.lm_eval_model import make_model
from mlflow_quantgov.evidence.measure.tasks import TaskFile, load_functions

BATCH = 16
SEED = 1234
PURPOSE = "run task evaluation"


def check_installed() -> None:
    """Say that lm-eval is missing before anything is loaded for it.

    Raises:
        MissingExtraError: It is not installed.
    """
    _go_offline()
    require("lm_eval", extra="eval", purpose=PURPOSE)


@dataclass(frozen=True)
class RawRun:
    """What lm-eval returned for one task."""

    samples: list[dict[str, Any]]
    """One per item, and per filter where the task has several."""
    config: dict[str, Any]
    """The task's configuration as lm-eval completed it."""
    higher_is_better: dict[str, bool]
    """Metric name to direction."""


def run_tasks(
    runtime: Runtime,
    tasks: list[TaskFile],
    *,
    limit: int | None,
    batch: int,
    progress: Callable[[float], None],
) -> dict[str, RawRun]:
    """Run tasks on a loaded model; the tasks' Python code runs in this process.

    Tasks that generate are asked in the model's own chat template, where it has one; tasks that score are not.

    Args:
        runtime: The loaded model.
        tasks: What to run.
        limit: Only the first items of each task; None for all.
        batch: Prompts answered at once.
        progress: Called with the fraction of requests answered.

    Returns:
        Task name to what lm-eval returned.

    Raises:
        MissingExtraError: lm-eval is not installed.
        UsageError: A task does not load, has no items, or its code fails.
    """
    check_installed()
    results: dict[str, RawRun] = {}
    with _quiet(), _seeded():
        loaded = _load(tasks)
        generating = [one.name for one in tasks if loaded["tasks"][one.name].OUTPUT_TYPE == "generate_until"]
        scoring = [one.name for one in tasks if one.name not in generating]
        for names, chat in ((generating, runtime.chat_template is not None), (scoring, False)):
            if not names:
                continue
            model = make_model(runtime, batch, _part(progress, len(results) / len(tasks), len(names) / len(tasks)))
            results |= _evaluate(model, {name: loaded["tasks"][name] for name in names}, limit, chat)
    return results


def _part(progress: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    """Progress of one part of the whole."""
    return lambda fraction: progress(start + share * fraction)


def _load(tasks: list[TaskFile]) -> Any:
    """lm-eval's task objects, made from configurations whose paths are absolute."""
    manager = require("lm_eval.tasks", extra="eval", purpose=PURPOSE).TaskManager(include_defaults=False)
    tasks_by_name: dict[str, Any] = {}
    for task in tasks:
        config = load_functions(task)
        try:
            loaded = manager.load([config])["tasks"]
            made = next(iter(loaded.values()))
            if not len(made.eval_docs):
                raise ValueError("it has no items")
        except Exception as error:
            raise _failed(task.name, "does not load", error) from error
        if made.config.num_fewshot is None:
            made.set_config(key="num_fewshot", value=0)
        made.set_fewshot_seed(seed=SEED)
        tasks_by_name[task.name] = made
    return {"tasks": tasks_by_name, "groups": {}}


def _evaluate(model: Any, tasks: dict[str, Any], limit: int | None, chat: bool) -> dict[str, RawRun]:
    evaluate = require("lm_eval.evaluator", extra="eval", purpose=PURPOSE).evaluate
    try:
        results = evaluate(
            lm=model,
            task_dict={"tasks": tasks, "groups": {}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
    except (QuantgovError, MemoryError):
        raise
    except Exception as error:
        raise _failed(", ".join(tasks), "failed while it ran", error) from error
    return {
        name: RawRun(
            results["samples"][name], dict(results["configs"][name]), dict(results["higher_is_better"].get(name) or {})
        )
        for name in tasks
    }


def _failed(name: str, what: str, error: Exception) -> UsageError:
    return UsageError(
        f"The task {name} {what}: {type(error).__name__}: {str(error)[:300]}.",
        why="What does not run is not measured; nothing was attached.",
        fix=f"correct the task, and try it on a few items: quantgov evaluate URI --tasks DIR --limit 2   # {name}",
    )


def _go_offline() -> None:
    """Set before lm-eval imports `datasets`: evaluation never reaches for a hub."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")


@contextmanager
def _quiet() -> Iterator[None]:
    """Errors only, and no progress bars of theirs beside ours."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm-eval", "datasets", "evaluate", "filelock")]
    levels = [logger.level for logger in loggers]
    task: Any = require("lm_eval.api.task", extra="eval", purpose=PURPOSE)
    datasets = require("datasets", extra="eval", purpose="read the items of a task")
    datasets.disable_progress_bars()
    bar = task.tqdm
    task.tqdm = lambda items, **_: items
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _seeded() -> Iterator[None]:
    """A fixed seed for tasks that draw (few-shot examples, shuffled choices), equal on both sides."""
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(SEED)
    np.random.seed(SEED)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
