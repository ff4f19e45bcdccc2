"""Token ids of scored pairs, and the room they need: the same in every runtime, or scores could not be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlflow_quantgov.errors import UsageError

LOGIT_BYTES = 256 * 1024 * 1024
"""Most bytes of the logits of one pass."""
EncodedPair = tuple[int, list[int], list[int]]
"""Place of a pair, token ids of its context, and of its continuation."""


def split_pair(
    tokenize: Callable[[str], list[int]], start: int, index: int, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Token ids of a context and its continuation, split where the context's own tokens end (lm-eval's convention).

    Spaces at the end of the context belong to the continuation, because tokenizers join them to the next word; an empty
    context becomes the token that starts a text.

    Args:
        tokenize: Text to token ids, with the special tokens that the model asks for.
        start: Token that starts a text.
        index: Place of the pair, for the error.
        context: What comes before; may be empty.
        continuation: What is scored.

    Raises:
        UsageError: The continuation has no tokens of its own.
    """
    bare = context.rstrip(" ")
    continuation, context = context[len(bare) :] + continuation, bare
    whole = tokenize(context + continuation)
    before = tokenize(context) if context else []
    if not before:
        # The file may ask for a beginning-of-text token; then `whole` has it already.
        before = [start]
        whole = whole if whole[:1] == before else before + whole
    if len(whole) <= len(before):
        raise UsageError(
            f"Pair {index} has a continuation without tokens of its own: {continuation[:40]!r}.",
            why="An empty continuation has no probability to compare.",
            fix="give every item a continuation that is not empty",
        )
    return before, whole[len(before) :]


def check_room(tokens: int, length: int, what: str) -> None:
    """Refuse what does not fit into one sequence: cutting it silently would change what is measured.

    Args:
        tokens: How many it takes.
        length: Tokens that fit into one sequence.
        what: What to call it in the error.

    Raises:
        UsageError: It is empty or too long.
    """
    if not 1 <= tokens <= length:
        raise UsageError(
            f"{what} takes {tokens} tokens; the context holds 1 to {length}.",
            why="Cutting it silently would measure something else.",
            fix="open the model with a larger `context`, or shorten the item",
        )


def encode_pairs(
    tokenize: Callable[[str], list[int]], start: int, length: int, pairs: Sequence[tuple[str, str]]
) -> list[EncodedPair]:
    """Token ids of pairs (see `split_pair`), refused where one does not fit into a sequence of `length` tokens."""
    encoded = []
    for index, (context, continuation) in enumerate(pairs):
        before, after = split_pair(tokenize, start, index, context, continuation)
        check_room(len(before) + len(after), length, f"Pair {index}")
        encoded.append((index, before, after))
    return encoded


def batches(encoded: Sequence[EncodedPair], tokens: int, vocabulary: int) -> Iterator[list[EncodedPair]]:
    """Pairs of like length, as many together as tokens per pass and the memory of their logits allow.

    Args:
        encoded: Of `encode_pairs`.
        tokens: Most tokens per pass, padding included.
        vocabulary: Logits per token.
    """
    room = max(1, min(tokens, LOGIT_BYTES // (4 * vocabulary)))
    part: list[EncodedPair] = []
    for one in sorted(encoded, key=lambda item: (-len(item[1]) - len(item[2]), item[0])):
        longest = len((part or [one])[0][1]) + len((part or [one])[0][2])
        if part and (len(part) + 1) * longest > room:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def check_generation(max_tokens: int, batch: int) -> None:
    """Refuse a request for answers that asks for nothing.

    Raises:
        UsageError: No tokens, or no prompts side by side.
    """
    if max_tokens < 1 or batch < 1:
        raise UsageError(
            f"generate() was asked for {max_tokens} tokens in batches of {batch}.",
            why="An answer has at least one token, and a batch at least one prompt.",
            fix="use max_tokens >= 1 and batch >= 1",
        )
