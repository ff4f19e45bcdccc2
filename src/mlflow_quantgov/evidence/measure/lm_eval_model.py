"""lm-eval's model interface over any of our runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.interface import Runtime, render_chat
from mlflow_quantgov.errors import UsageError, require
from mlflow_quantgov.evidence.measure.cache import BatchCache
from mlflow_quantgov.evidence.measure.distributions import log_softmax

DEFAULT_MAX_TOKENS = 256
ROUNDS = 4
"""Batches handed to the runtime at once: a finished answer makes room for the next prompt, and progress still moves."""
_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Chat:
    """How a conversation becomes a prompt."""

    template: str | None
    """Jinja source; None asks without one."""
    by_runtime: bool = False
    """The turns go to the runtime, which renders them: a server's own template cannot be seen from outside."""

    @property
    def used(self) -> bool:
        """Whether tasks that generate are asked in turns."""
        return self.by_runtime or self.template is not None


def make_model(
    runtime: Runtime,
    batch: int,
    progress: Callable[[float], None],
    *,
    kept: BatchCache | None = None,
    chat: Chat | None = None,
    only: Collection[tuple[str, int]] | None = None,
) -> Any:
    """An `lm_eval.api.model.LM` over a runtime; made in here because its base needs the optional library.

    Args:
        runtime: The loaded model.
        batch: Prompts answered side by side.
        progress: Called with the fraction of requests answered.
        kept: Where batches are kept as they are answered; None keeps nothing.
        chat: How conversations are put; None for the model's own template.
        only: Items (task, position) whose batches are asked; other batches get empty answers. None asks all.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    batches = kept or BatchCache(None, [])
    how = chat or Chat(runtime.chat_template)
    base: Any = require("lm_eval.api.model", extra="eval", purpose="run task evaluation").LM

    class RuntimeModel(base):  # type: ignore[misc]
        """Answers lm-eval's three kinds of requests, greedily."""

        tokenizer_name = "quantgov"

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return how.template

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            if how.by_runtime:
                return json.dumps([dict(message) for message in chat_history], ensure_ascii=False)
            return render_chat(how.template, chat_history)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            asked = [(one.args[0], dict(one.args[1])) for one in requests]
            wanted = None if only is None else {n for n, one in enumerate(requests) if _place(one) in only}
            return generate(runtime, asked, batch, progress, kept=batches, conversations=how.by_runtime, wanted=wanted)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found: list[tuple[float, bool]] = []
            for start in range(0, len(requests), batch * ROUNDS):
                chunk = requests[start : start + batch * ROUNDS]
                pairs = [(one.args[0], one.args[1]) for one in chunk]
                if only is None or any(_place(one) in only for one in chunk):
                    answers = batches.answer("score", pairs, partial(_score, runtime, pairs))
                else:
                    answers = [[0.0, False]] * len(pairs)
                found += [(float(logprob), bool(greedy)) for logprob, greedy in answers]
                progress(len(found) / len(requests))
            return found

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            found = []
            for one in requests:
                if only is not None and _place(one) not in only:
                    found.append(0.0)
                    continue
                ask = partial(_roll, runtime, one.args[0])
                found += [float(total) for total in batches.answer("rolling", [one.args[0]], ask)]
                progress(len(found) / len(requests))
            return found

    return RuntimeModel()


def _place(request: Any) -> tuple[str, int]:
    """Task and position of the item that one of lm-eval's requests is about."""
    return str(request.task_name), int(request.doc_id)


def _roll(runtime: Runtime, text: str) -> list[float]:
    return [rolling(runtime, text)]


def _score(runtime: Runtime, pairs: list[tuple[str, str]]) -> list[list[Any]]:
    return [[score.logprob, score.is_greedy] for score in runtime.score(pairs)]


def generate(
    runtime: Runtime,
    requests: Sequence[tuple[str, dict[str, Any]]],
    batch: int,
    progress: Callable[[float], None],
    *,
    kept: BatchCache | None = None,
    conversations: bool = False,
    wanted: Collection[int] | None = None,
) -> list[str]:
    """Answer prompts, those with equal settings together, in the order in which they were asked.

    Args:
        runtime: The loaded model.
        requests: Prompt and lm-eval's generation settings.
        batch: Prompts answered side by side.
        progress: Called with the fraction answered.
        kept: Where batches are kept as they are answered; None keeps nothing.
        conversations: Prompts are turns in JSON, for the runtime to render.
        wanted: Places of requests whose batches are asked; other batches get empty answers. None asks all.

    Raises:
        UsageError: A task asks for sampling.
    """
    batches = kept or BatchCache(None, [])
    answers = [""] * len(requests)
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for index, (_, settings) in enumerate(requests):
        groups.setdefault((_max_tokens(settings), _stops(settings)), []).append(index)
    done = 0
    for (max_tokens, stops), indices in groups.items():
        for start in range(0, len(indices), batch * ROUNDS):
            chunk = indices[start : start + batch * ROUNDS]
            if wanted is not None and not any(index in wanted for index in chunk):
                continue
            prompts = [requests[index][0] for index in chunk]
            told = partial(_moved, progress, done, len(requests))
            ask = partial(
                _ask,
                runtime,
                prompts,
                told,
                conversations=conversations,
                max_tokens=max_tokens,
                stop=stops,
                batch=batch,
            )
            found = batches.answer("generate", [[prompt, max_tokens, stops] for prompt in prompts], ask)
            for index, answer in zip(chunk, found, strict=True):
                answers[index] = str(answer)
            done += len(chunk)
            progress(done / len(requests))
    return answers


def _moved(progress: Callable[[float], None], before: int, of: int, answered: float) -> None:
    """Tell of answers inside a batch: on a CPU one may take minutes."""
    progress((before + answered) / of)


def _ask(
    runtime: Runtime, prompts: list[str], told: Callable[[float], None], *, conversations: bool, **settings: Any
) -> list[str]:
    runtime.answered = told
    try:
        if not conversations:
            return runtime.generate(prompts, **settings)
        return runtime.converse([_turns(prompt) for prompt in prompts], **settings)
    finally:
        del runtime.answered  # what is asked afterwards is no part of this


def _turns(prompt: str) -> list[dict[str, str]]:
    """The turns of a conversation in JSON; whatever else a task asks is one turn of a user."""
    try:
        found = json.loads(prompt)
        if isinstance(found, list) and found and all(set(one) == {"role", "content"} for one in found):
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    return [{"role": "user", "content": prompt}]


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
