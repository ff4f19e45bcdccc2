"""lm-eval's model interface over any of our runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.errors import UsageError, require
from mlflow_quantgov.evidence.measure.distributions import log_softmax

DEFAULT_MAX_TOKENS = 256
ROUNDS = 4
"""Batches handed to the runtime at once: a finished answer makes room for the next prompt, and progress still moves."""
_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def make_model(runtime: Runtime, batch: int, progress: Callable[[float], None]) -> Any:
    """An `lm_eval.api.model.LM` over a runtime; made in here because its base needs the optional library.

    Args:
        runtime: The loaded model.
        batch: Prompts answered side by side.
        progress: Called with the fraction of requests answered.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    base: Any = require("lm_eval.api.model", extra="eval", purpose="run task evaluation").LM

    class RuntimeModel(base):  # type: ignore[misc]
        """Answers lm-eval's three kinds of requests, greedily."""

        tokenizer_name = "quantgov"

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return runtime.chat_template

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            messages = [dict(message) for message in chat_history]
            if add_generation_prompt or not messages:
                return runtime.render_chat(messages)
            # The task begins the answer itself (`gen_prefix`): its words follow the template's prompt.
            return runtime.render_chat(messages[:-1]) + messages[-1]["content"]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return generate(runtime, [(one.args[0], dict(one.args[1])) for one in requests], batch, progress)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found: list[tuple[float, bool]] = []
            for start in range(0, len(requests), batch * ROUNDS):
                pairs = [(one.args[0], one.args[1]) for one in requests[start : start + batch * ROUNDS]]
                found += [(score.logprob, score.is_greedy) for score in runtime.score(pairs)]
                progress(len(found) / len(requests))
            return found

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            return [rolling(runtime, one.args[0]) for one in requests]

    return RuntimeModel()


def generate(
    runtime: Runtime,
    requests: Sequence[tuple[str, dict[str, Any]]],
    batch: int,
    progress: Callable[[float], None],
) -> list[str]:
    """Answer prompts, those with equal settings together, in the order in which they were asked.

    Args:
        runtime: The loaded model.
        requests: Prompt and lm-eval's generation settings.
        batch: Prompts answered side by side.
        progress: Called with the fraction answered.

    Raises:
        UsageError: A task asks for sampling.
    """
    answers = [""] * len(requests)
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for index, (_, settings) in enumerate(requests):
        groups.setdefault((_max_tokens(settings), _stops(settings)), []).append(index)
    done = 0
    for (max_tokens, stops), indices in groups.items():
        for start in range(0, len(indices), batch * ROUNDS):
            chunk = indices[start : start + batch * ROUNDS]
            prompts = [requests[index][0] for index in chunk]
            found = runtime.generate(prompts, max_tokens=max_tokens, stop=stops, batch=batch)
            for index, answer in zip(chunk, found, strict=True):
                answers[index] = answer
            done += len(chunk)
            progress(done / len(requests))
    return answers


def rolling(runtime: Runtime, text: str) -> float:
    """Log-probability of a whole text, natural logarithm, in windows of the context's length.

    Each token after the first (or after the token that starts a text, where the model has one) is predicted once;
    a window begins with the last token of the one before.
    """
    tokens = runtime.tokenize(text, add_special=True)
    total = 0.0
    step = max(1, runtime.context_length - 1)
    for start in range(0, len(tokens) - 1, step):
        window = tokens[start : start + step + 1]
        rows = log_softmax(runtime.logits(window[:-1]))
        total += float(rows[np.arange(len(window) - 1), window[1:]].sum())
    return total


def _max_tokens(settings: dict[str, Any]) -> int:
    if settings.get("do_sample") or float(settings.get("temperature") or 0.0) > 0:
        raise UsageError(
            "A task asks for sampling (do_sample or a temperature).",
            why="Two sampled answers differ by chance, which would be taken for an effect of the quantization.",
            fix="set `do_sample: false` and `temperature: 0` in the task's generation_kwargs",
        )
    given = next((settings[name] for name in _TOKEN_NAMES if settings.get(name) is not None), DEFAULT_MAX_TOKENS)
    return max(1, int(given))


def _stops(settings: dict[str, Any]) -> tuple[str, ...]:
    until = settings.get("until") or ()
    return (until,) if isinstance(until, str) else tuple(str(one) for one in until if one)
