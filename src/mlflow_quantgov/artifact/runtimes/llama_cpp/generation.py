"""Greedy continuation of many prompts with continuous batching: a finished answer makes room for the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlflow_quantgov.artifact.runtimes.llama_cpp.context import Context, Entry
from mlflow_quantgov.artifact.runtimes.llama_cpp.vocabulary import Vocabulary


@dataclass
class _Answer:
    """One answer being written in one slot (sequence) of the context."""

    index: int
    prompt: Sequence[int]
    written: bytearray = field(default_factory=bytearray)
    tokens: int = 0
    last: int = -1

    def entries(self, slot: int) -> list[Entry]:
        """What to decode next: the whole prompt at first, then the token written last."""
        if self.last < 0:
            end = len(self.prompt) - 1
            return [Entry(token, at, (slot,), at == end) for at, token in enumerate(self.prompt)]
        return [Entry(self.last, len(self.prompt) + self.tokens - 1, (slot,), True)]


def greedy(
    context: Context,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    stop: Sequence[str],
    answered: Callable[[float], None],
) -> list[str]:
    """Continue each prompt with its most likely tokens, `context.sequences` of them side by side.

    An answer ends at a token that ends text, before the first stop string, or after `max_tokens`. Work is taken up in a
    fixed order, so equal calls on equal machines give equal answers.

    Args:
        context: Independent sequences, each with room for its prompt and answer.
        vocabulary: The model's vocabulary.
        prompts: Token ids of each prompt, none empty.
        max_tokens: Most tokens per answer, above 0.
        stop: Strings at which an answer ends; they are left out.
        answered: Told after each step how many answers there are; one that is being written counts by its share of `max_tokens`.

    Returns:
        The answers, in the order of the prompts.
    """
    stops = [text.encode("utf-8") for text in stop if text]
    waiting = deque(_Answer(index, prompt) for index, prompt in enumerate(prompts))
    answers = [""] * len(prompts)
    slots: dict[int, _Answer] = {}
    context.clear()
    while waiting or slots:
        for slot in range(context.sequences):
            if slot not in slots and waiting:
                slots[slot] = waiting.popleft()
        active = sorted(slots)
        entries = [entry for slot in active for entry in slots[slot].entries(slot)]
        tokens = [int(np.argmax(row)) for row in context.decode(entries)]
        for slot, token in zip(active, tokens, strict=True):
            answer = slots[slot]
            if _take(answer, token, vocabulary, stops) or answer.tokens >= max_tokens:
                answers[answer.index] = bytes(answer.written).decode("utf-8", "replace")
                del slots[slot]
                context.forget(slot)
        begun = sum(answer.tokens for answer in slots.values()) / max_tokens
        answered(len(prompts) - len(waiting) - len(slots) + begun)
    return answers


def _take(answer: _Answer, token: int, vocabulary: Vocabulary, stops: Sequence[bytes]) -> bool:
    """Write one token; returns whether the answer has ended (text from the first stop string on is cut off)."""
    if vocabulary.ends(token):
        return True
    piece = vocabulary.piece(token)
    answer.written += piece
    answer.tokens += 1
    answer.last = token
    found = -1
    for text in stops:
        at = answer.written.find(text, max(0, len(answer.written) - len(piece) - len(text)))
        found = at if at >= 0 and (found < 0 or at < found) else found
    if found >= 0:
        del answer.written[found:]
    return found >= 0
