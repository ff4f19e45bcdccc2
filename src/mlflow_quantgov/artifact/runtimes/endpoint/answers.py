"""What an OpenAI-compatible server's answers mean: texts, and log-probabilities of a prompt."""

from __future__ import annotations

import math
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Score
from mlflow_quantgov.errors import UnreachableError, UsageError


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
    try:
        choice = answer["choices"][0]
        logs = choice["logprobs"]
        tokens, values, offsets = logs["tokens"], logs["token_logprobs"], logs["text_offset"]
        tops = logs["top_logprobs"]
        echoed = str(choice["text"]).startswith(prompt) and len(tokens) == len(values) == len(offsets) == len(tops)
    except (KeyError, IndexError, TypeError):
        echoed = False
    if not echoed:
        raise no_scores()
    base = int(offsets[0]) if offsets else 0
    start, end = len(context.rstrip(" ")), len(prompt)
    chosen = [at for at in range(len(tokens)) if _reaches(offsets, at, base, start, end)]
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
