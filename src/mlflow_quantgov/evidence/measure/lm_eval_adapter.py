"""Any of our runtimes as a model of lm-eval, and one quiet, offline run of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.errors import require
from mlflow_quantgov.evidence.measure.tasks import TaskFile, load_functions

DEFAULT_MAX_TOKENS = 256
BATCH = 16
FEW_SHOT_SEED = 1234


def run_tasks(
    runtime: Runtime,
    tasks: list[TaskFile],
    *,
    limit: int | None,
    batch: int,
    progress: Callable[[float], None],
) -> dict[str, list[dict[str, Any]]]:
    """Run tasks on a loaded model.

    Args:
        runtime: The loaded model.
        tasks: What to run.
        limit: Only the first items of each task; None for all.
        batch: Prompts answered at once.
        progress: Called with the fraction of requests answered.

    Returns:
        Task name to lm-eval's samples, one per item.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    # Set before lm-eval imports `datasets`: evaluation never reaches for a hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    evaluator = require("lm_eval.evaluator", extra="eval", purpose="run task evaluation")
    manager = require("lm_eval.tasks", extra="eval", purpose="run task evaluation").TaskManager(include_defaults=False)
    datasets = require("datasets", extra="eval", purpose="read the items of a task")
    datasets.disable_progress_bars()
    for name in ("lm_eval", "lm-eval", "datasets", "evaluate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    loaded = manager.load([load_functions(task) for task in tasks])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    results = evaluator.evaluate(
        _model(runtime, batch, progress), loaded, limit=limit, log_samples=True, bootstrap_iters=0
    )
    return dict(results["samples"])


def _model(runtime: Runtime, batch: int, progress: Callable[[float], None]) -> Any:
    """An lm-eval model over a runtime; the class is made here because its base needs the optional library."""
    base: Any = require("lm_eval.api.model", extra="eval", purpose="run task evaluation").LM

    class RuntimeModel(base):  # type: ignore[misc]
        """Answers lm-eval's three kinds of requests."""

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            answers: list[str] = []
            for start in range(0, len(requests), batch):
                chunk = requests[start : start + batch]
                settings = dict(chunk[0].args[1])
                answers += runtime.generate(
                    [_prompt(runtime, one.args[0]) for one in chunk],
                    max_tokens=int(settings.get("max_gen_toks", DEFAULT_MAX_TOKENS)),
                    stop=_stops(settings),
                    batch=batch,
                )
                progress(len(answers) / len(requests))
            return answers

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found: list[tuple[float, bool]] = []
            for start in range(0, len(requests), batch):
                pairs = [(one.args[0], one.args[1]) for one in requests[start : start + batch]]
                found += [(score.logprob, score.is_greedy) for score in runtime.score(pairs)]
                progress(len(found) / len(requests))
            return found

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            return [runtime.score([("", one.args[0])])[0].logprob for one in requests]

    return RuntimeModel()


def _prompt(runtime: Runtime, context: str) -> str:
    """A generation prompt: one user's turn in the model's own chat template, where it has one."""
    if runtime.chat_template is None:
        return context
    return runtime.render_chat([{"role": "user", "content": context}])


def _stops(settings: dict[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)
