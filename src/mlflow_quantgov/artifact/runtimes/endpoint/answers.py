"""What an OpenAI-compatible server's answers mean: texts, and log-probabilities of a prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Score
from mlflow_quantgov.errors import UnreachableError, UsageError

_TOLERANCE = 1e-3
"""Servers round."""


def text_of(answer: dict[str, Any]) -> str:
    """The text of a completion or a chat answer.

    Raises:
        UnreachableError: There is none.
    """
    try:
        choice = answer["choices"][0]
        found = choice["text"] if "text" in choice else choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise nonsense("an answer without a text") from error
    if found is None:
        return ""
    if not isinstance(found, str):
        raise nonsense("an answer whose text is none")
    return found


def cut(text: str, stops: list[str]) -> str:
    """Text before the first stop string: not every server leaves it out, and most take four at most."""
    places = [text.find(one) for one in stops if one in text]
    return text[: min(places)] if places else text


def score_of(answer: dict[str, Any], context: str, continuation: str, index: int) -> Score:
    """Score of a continuation, by the log-probabilities of an echoed prompt.

    Tokens count from the first that reaches into the continuation; spaces at the end of the context belong to it, as
    in every other runtime (see `split_pair`).

    Args:
        answer: To a request with `echo` and `logprobs`.
        context: What came before.
        continuation: What is scored.
        index: Place of the pair, for the error.

    Raises:
        UsageError: The endpoint gives no log-probabilities of the prompt, or none for this context.
    """
    prompt = context + continuation
    values, tops, offsets = (echo := _echo(answer, prompt)).values, echo.tops, echo.offsets
    base = int(offsets[0]) if offsets else 0
    start, end = len(context.rstrip(" ")), len(prompt)
    chosen = [at for at in range(len(values)) if _reaches(offsets, at, base, start, end)]
    if not chosen:
        raise no_scores()
    if any(not isinstance(values[at], int | float) or not math.isfinite(values[at]) for at in chosen):
        raise UsageError(
            f"Pair {index} has no context, and the endpoint gives the first token of a text no probability.",
            why="A missing value cannot be taken for a number.",
            fix="give every item a context that is not empty",
        )
    greedy = all(isinstance(tops[at], dict) and _is_top(values[at], tops[at]) for at in chosen)
    return Score(float(sum(values[at] for at in chosen)), greedy, len(chosen))


@dataclass(frozen=True)
class PromptToken:
    """One token of a prompt, as an endpoint echoed it."""

    text: str
    logprob: float
    """Natural log of its probability given what came before."""
    top: dict[str, float]
    """Most likely tokens at its place, with their log-probabilities."""


def prompt_tokens_of(answer: dict[str, Any], prompt: str) -> list[PromptToken]:
    """Every token of an echoed prompt but the first, which nothing precedes.

    Args:
        answer: To a request with `echo` and `logprobs`.
        prompt: What was sent.

    Raises:
        UsageError: The endpoint gives no log-probabilities of the prompt.
        UnreachableError: What it gives are no probabilities.
    """
    echo = _echo(answer, prompt)
    base = int(echo.offsets[0]) if echo.offsets else 0
    found = []
    for at in range(1, len(echo.values)):
        if not _reaches(echo.offsets, at, base, 0, len(prompt)):
            continue  # written by the model, after the prompt
        top = echo.tops[at]
        if not isinstance(top, dict) or not top:
            raise no_scores()
        listed = {str(name): _logprob(value) for name, value in top.items()}
        if sum(math.exp(value) for value in listed.values()) > 1 + _TOLERANCE:
            raise nonsense("most likely tokens whose probabilities add up to more than 1")
        found.append(PromptToken(str(echo.tokens[at]), _logprob(echo.values[at]), listed))
    return found


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 < value <= _TOLERANCE:
        raise nonsense(f"{str(value)[:20]!r} for a log-probability")
    return min(0.0, float(value))


@dataclass(frozen=True)
class _Echo:
    tokens: list[Any]
    values: list[Any]
    offsets: list[int]
    tops: list[Any]


def _echo(answer: dict[str, Any], prompt: str) -> _Echo:
    """The lists of an echoed prompt, of equal length.

    Raises:
        UsageError: There are none.
    """
    try:
        choice = answer["choices"][0]
        logs = choice["logprobs"]
        echo = _Echo(logs["tokens"], logs["token_logprobs"], logs["text_offset"], logs["top_logprobs"])
        lengths = {len(one) for one in (echo.tokens, echo.values, echo.offsets, echo.tops)}
        if str(choice["text"]).startswith(prompt) and len(lengths) == 1 and all(type(at) is int for at in echo.offsets):
            return echo
    except (KeyError, IndexError, TypeError):
        pass
    raise no_scores()


def _reaches(offsets: list[int], at: int, base: int, start: int, end: int) -> bool:
    """Whether a token holds any character from `start` to `end` of the prompt."""
    first = int(offsets[at]) - base
    after = int(offsets[at + 1]) - base if at + 1 < len(offsets) else end + 1
    return first < end and after > start


def _is_top(value: float, top: dict[str, Any]) -> bool:
    """Whether no listed token is more likely; servers list the token itself beside the most likely ones."""
    listed = [one for one in top.values() if isinstance(one, int | float)]
    return bool(listed) and value >= max(listed) - 1e-6


def no_scores() -> UsageError:
    """The error for a server that does not return the prompt's log-probabilities."""
    return UsageError(
        "This endpoint does not return log-probabilities of the prompt (`echo` with `logprobs` on /completions).",
        why="A continuation that the model did not write itself can then not be scored.",
        fix="use tasks with `output_type: generate_until`, a server that echoes (vLLM does), or the model's own runtime",
    )


def nonsense(what: str) -> UnreachableError:
    """The error for an answer that is JSON and still no answer."""
    return UnreachableError(
        f"The endpoint gave {what}.",
        why="Nothing was measured.",
        fix="try the same request by curl, and check `api` in the endpoint's description",
    )
