"""Fidelity of two endpoints by the log-probabilities that they return: imported, since nobody here saw the bytes run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.runtimes.endpoint import EndpointRuntime
from mlflow_quantgov.artifact.runtimes.endpoint.adapter import EndpointAdapter
from mlflow_quantgov.artifact.runtimes.endpoint.answers import PromptToken
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.distributions import Sums, sums_of
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.fidelity_work import (
    Cost,
    KeptRecords,
    Progress,
    Unit,
    check_number,
    no_records,
    score_all,
    warnings_of,
)
from mlflow_quantgov.evidence.measure.provenance import provenance, side
from mlflow_quantgov.evidence.predicates.fidelity import Fidelity
from mlflow_quantgov.evidence.statement import sha256_digest

MOST_TOP, LEAST_TOP = 20, 5
"""Most likely tokens to ask for: what vLLM gives at most by default, and what the protocol promised from the start."""
_RESERVE = 8
"""Tokens of the context that are left for the server's own."""
_SMALLEST_REST = 1e-6
"""Less than this is no more than rounding of what was listed."""
_BOUND = (
    "KL is a lower bound: the endpoints list their {top} most likely tokens, all others count as one, and joining tokens never "
    "makes a divergence larger (data-processing inequality). No upper bound follows from a list."
)


def measure_served(
    parent: Path,
    quantized: Path,
    *,
    text: Path,
    parent_weights: str,
    quantized_weights: str,
    settings: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Fidelity:
    """Compare two endpoints that echo a prompt with its log-probabilities (vLLM does).

    Nothing is kept from one run for the next: what a server runs may change under the same name.

    Args:
        parent: Description of the endpoint that serves the parent.
        quantized: Description of the endpoint that serves the quantized model.
        text: JSONL with `text` (or `messages`), or plain text with a document per paragraph.
        parent_weights: Weights digest of the parent, as claimed.
        quantized_weights: Weights digest of the quantized model, as claimed.
        settings: Settings of both endpoints.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: An endpoint does not return log-probabilities of a prompt, or the file holds no documents.
        UnreachableError: An endpoint does not answer.
        EvidenceError: The endpoints split the same text into different tokens.
    """
    report = progress or (lambda message, fraction: None)
    documents = {sha256_digest(one.encode()): one for one in read_documents(text)}
    check_number(len(documents))
    adapter = EndpointAdapter()
    with (
        closing(adapter.open(parent, **(settings or {}))) as left,
        closing(adapter.open(quantized, **(settings or {}))) as right,
    ):
        room = min(left.context_length, right.context_length) - _RESERVE
        top = _top(left, right)

        def unit(name: str, document: str) -> Unit:
            return Unit(name, len(document), lambda: _score(left, right, pieces(document, room), top))

        def cost(pending: Sequence[Unit]) -> Cost:
            piece = pieces(documents[pending[0].id], room)[:1]
            begun = time.perf_counter()
            tokens = _score(left, right, piece, top).tokens + 1
            share = sum(one.size for one in pending) / len(piece[0])
            return Cost(round(tokens * share), (time.perf_counter() - begun) * share)

        records = score_all([unit(name, one) for name, one in documents.items()], KeptRecords(None, []), cost, report)
        # An endpoint names its version along with its answers.
        sides = (
            side(parent_weights, left.facts(), parent),
            side(quantized_weights, right.facts(), quantized),
        )
    if not records:
        raise no_records(text.name)
    report("done", 1.0)
    return Fidelity.measured(
        provenance=provenance("numpy", imported=True),
        parent=sides[0],
        quantized=sides[1],
        data=file_digest(text),
        distributions="top-k",
        settings={"top": top, "bytes": room, **(settings or {})},
        documents=tuple(records),
        warnings=(*warnings_of(records), _BOUND.format(top=top)),
    )


def pieces(text: str, room: int) -> list[str]:
    """Parts of a text of at most `room` bytes, cut before spaces where there are any.

    No token is shorter than a byte, so that a part surely fits into a context of `room` tokens.
    """
    found, start = [], 0
    while start < len(text):
        end, used = start, 0
        while end < len(text) and (used := used + len(text[end].encode("utf-8", "surrogatepass"))) <= room:
            end += 1
        end = max(end, start + 1)
        space = text.rfind(" ", start + 1, end)
        end = space if end < len(text) and space > start else end
        found.append(text[start:end])
        start = end
    return found


def lumped(parent: PromptToken, quantized: PromptToken) -> float:
    """KL over the tokens that both sides list, and all others as one: a lower bound of the whole (Kullback and Leibler).

    Names with a replacement character stand for bytes that are no text, several tokens at once; they count as others.
    """
    shared = [name for name in parent.top if name in quantized.top and "\ufffd" not in name]
    p = [math.exp(parent.top[name]) for name in shared]
    q = [math.exp(quantized.top[name]) for name in shared]
    found = sum(a * (parent.top[name] - quantized.top[name]) for name, a in zip(shared, p, strict=True))
    rest_p, rest_q = max(0.0, 1 - sum(p)), max(_SMALLEST_REST, 1 - sum(q))
    return found + (rest_p * math.log(rest_p / rest_q) if rest_p > 0 else 0.0)


def _top(parent: EndpointRuntime, quantized: EndpointRuntime) -> int:
    """As many most likely tokens as both servers give."""
    try:
        for one in (parent, quantized):
            one.prompt_tokens(["one two"], MOST_TOP)
    except UsageError:
        for one in (parent, quantized):
            one.prompt_tokens(["one two"], LEAST_TOP)
        return LEAST_TOP
    return MOST_TOP


def _score(parent: EndpointRuntime, quantized: EndpointRuntime, parts: Sequence[str], top: int) -> Sums:
    """Compare both endpoints on the parts of one document."""
    total = Sums()
    for left, right in zip(parent.prompt_tokens(parts, top), quantized.prompt_tokens(parts, top), strict=True):
        if [one.text for one in left] != [one.text for one in right]:
            raise EvidenceError(
                "The two endpoints split the same text into different tokens.",
                why="Their next-token distributions cannot be compared.",
                fix="check that both descriptions name models with the same tokenizer",
            )
        total += _compare(left, right)
    return total


def _compare(left: Sequence[PromptToken], right: Sequence[PromptToken]) -> Sums:
    pairs = list(zip(left, right, strict=True))
    return sums_of(
        np.array([one.logprob for one in left]),
        np.array([one.logprob for one in right]),
        np.array([lumped(p, q) for p, q in pairs]),
        same_top=np.array([_most_likely(p) == _most_likely(q) for p, q in pairs], dtype=bool),
        identical=np.array([p == q for p, q in pairs], dtype=bool),
    )


def _most_likely(token: PromptToken) -> str:
    return max(token.top, key=lambda name: (token.top[name], name))
