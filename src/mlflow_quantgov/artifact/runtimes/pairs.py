"""Token ids of scored pairs, and the room they need: the same in every runtime, or scores could not be compared."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_quantgov.errors import UsageError


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
