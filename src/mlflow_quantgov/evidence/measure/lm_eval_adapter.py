"""Any of our runtimes as a model of lm-eval, and one quiet, offline run of it."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.errors import QuantgovError, UsageError, require
from mlflow_quantgov.evidence.measure.cache import BatchCache
from mlflow_quantgov.evidence.measure.lm_eval_model import Chat, make_model
from mlflow_quantgov.evidence.measure.tasks import TaskFile, load_functions

BATCH = 16
SEED = 1234
PURPOSE = "run task evaluation"


def check_installed(*, online: bool = False) -> None:
    """Say that lm-eval is missing before anything is loaded for it.

    Args:
        online: Whether data sets may come from a hub, for tasks that lm-eval ships; a task folder brings its own.

    Raises:
        MissingExtraError: It is not installed.
    """
    if not online:
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


@dataclass(frozen=True)
class Run:
    """How tasks are run, beside the model and the tasks."""

    batch: int = BATCH
    """Prompts answered at once."""
    limit: int | None = None
    """Only the first items of each task; None for all."""
    chosen: dict[str, list[int]] | None = None
    """Task name to the positions of the items to run, in rising order; overrules the limit."""
    chat: Chat | None = None
    """How conversations are put; None for the model's own template."""
    kept: BatchCache | None = None
    """Where batches are kept as they are answered."""
    only: frozenset[tuple[str, int]] | None = None
    """Items (task, position) whose batches are really asked, each among its usual neighbours; what is said of the rest of the
    items then means nothing. None asks everything."""


def run_tasks(
    runtime: Runtime,
    tasks: list[TaskFile],
    run: Run,
    progress: Callable[[float], None],
    announce: Callable[[dict[str, int]], None] | None = None,
) -> dict[str, RawRun]:
    """Run tasks on a loaded model; the tasks' Python code runs in this process.

    Tasks that generate are asked in the model's own chat template, where it has one, with few-shot examples as turns;
    tasks that score are not.

    Args:
        runtime: The loaded model.
        tasks: What to run.
        run: How to run them.
        progress: Called with the fraction of requests answered.
        announce: Called with the number of items of every task, before anything is asked.

    Returns:
        Task name to what lm-eval returned.

    Raises:
        MissingExtraError: lm-eval is not installed.
        UsageError: A task does not load, has no items, or its code fails.
    """
    results: dict[str, RawRun] = {}
    how = run.chat or Chat(runtime.chat_template)
    with quiet(), _seeded():
        loaded = _load(tasks)
        if announce is not None:
            announce({name: _count(made, run, name) for name, made in loaded.items()})
        generating = [one.name for one in tasks if loaded[one.name].OUTPUT_TYPE == "generate_until"]
        scoring = [one.name for one in tasks if one.name not in generating]
        for names, chat in ((generating, how.used), (scoring, False)):
            if not names:
                continue
            part = _part(progress, len(results) / len(tasks), len(names) / len(tasks))
            asked = replace(how, by_runtime=how.by_runtime and chat)
            model = make_model(runtime, run.batch, part, kept=run.kept, chat=asked, only=run.only)
            results |= _evaluate(model, {name: loaded[name] for name in names}, run, chat)
    return results


def documents(task: TaskFile) -> list[Any]:
    """The items of one task as lm-eval reads them.

    Raises:
        UsageError: The task does not load, or has no items.
    """
    with quiet(), _seeded():
        return list(_load([task])[task.name].eval_docs)


def _count(made: Any, run: Run, name: str) -> int:
    if run.chosen is not None:
        return len(run.chosen[name])
    count = len(made.eval_docs)
    return count if run.limit is None else min(count, run.limit)


def _part(progress: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    """Progress of one part of the whole."""
    return lambda fraction: progress(start + share * fraction)


def _load(tasks: list[TaskFile]) -> dict[str, Any]:
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
            if _is_out_of_reach(error):
                raise _out_of_reach(task, error) from error
            raise _failed(task.name, "does not load", error) from error
        if made.config.num_fewshot is None:
            made.set_config(key="num_fewshot", value=0)
        made.set_fewshot_seed(seed=SEED)
        tasks_by_name[task.name] = made
    return tasks_by_name


def _evaluate(model: Any, tasks: dict[str, Any], run: Run, chat: bool) -> dict[str, RawRun]:
    evaluate = require("lm_eval.evaluator", extra="eval", purpose=PURPOSE).evaluate
    try:
        results = evaluate(
            lm=model,
            task_dict={"tasks": tasks, "groups": {}},
            limit=None if run.chosen else run.limit,
            samples={name: run.chosen[name] for name in tasks} if run.chosen else None,
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


def _is_out_of_reach(error: Exception) -> bool:
    """Whether data were looked for on a hub and not had."""
    kinds = {
        "ConnectionError",
        "OfflineModeIsEnabled",
        "DatasetNotFoundError",
        "LocalEntryNotFoundError",
        "ConnectError",
    }
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in kinds:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _out_of_reach(task: TaskFile, error: Exception) -> UsageError:
    path = task.config.get("dataset_path")
    return UsageError(
        f"The data set {path} of the task {task.name} is not on this machine, and no hub was reached"
        f" ({type(error).__name__}).",
        why="A task without its items cannot be run; nothing was attached.",
        fix=f"run it once where the hub is reachable and copy the cache (HF_HOME), or put the data set into ./{path}",
    )


def _go_offline() -> None:
    """Set before lm-eval imports `datasets`: evaluation never reaches for a hub."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")


@contextmanager
def quiet() -> Iterator[None]:
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
