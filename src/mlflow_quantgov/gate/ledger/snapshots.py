"""What a decision rested on, as bytes that are kept by their digest: the same facts, whoever asks and whenever, are kept once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlflow_quantgov.errors import TamperingError
from mlflow_quantgov.evidence.signing import Signature
from mlflow_quantgov.evidence.statement import parse_statement, sha256_digest
from mlflow_quantgov.policy.facts import Evidence, Facts
from mlflow_quantgov.policy.noted import Noted

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_LISTS = ("evidence", "aside", "spot_checks")
"""Of a sibling."""


def snapshot(facts: Facts) -> bytes:
    """Facts as JSON, statements by digest; without who asked and when, which the ledger's row says."""
    bare = replace(
        facts,
        now=_NO_TIME,
        requester=None,
        evidence=(),
        siblings=tuple(replace(one, evidence=(), aside=(), spot_checks=()) for one in facts.siblings),
    )
    value = {
        "facts": _facts().dump_python(bare, mode="json", by_alias=True),
        "evidence": _references(facts.evidence),
        "siblings": [{name: _references(getattr(one, name)) for name in _LISTS} for one in facts.siblings],
    }
    # Infinite numbers stand in comparisons of weights; Python's own spelling of them comes back as it was.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def named_statements(content: bytes) -> set[str]:
    """Digests of the statements that a snapshot names."""
    value = json.loads(content)
    lists = [value["evidence"], *(one[name] for one in value["siblings"] for name in _LISTS)]
    return {reference["digest"] for one in lists for reference in one}


def restore(content: bytes, statements: Mapping[str, bytes], *, now: datetime, requester: str | None) -> Facts:
    """The facts of a snapshot.

    Args:
        content: What `snapshot` gave.
        statements: Digest to kept bytes.
        now: When the decision was made.
        requester: Who asked.

    Raises:
        TamperingError: A statement is not there or is another one, or the snapshot does not read as facts.
    """
    try:
        value = json.loads(content)
        facts = _facts().validate_python(value["facts"])
        siblings = tuple(
            replace(
                one,
                evidence=_evidence(lists["evidence"], statements),
                aside=_evidence(lists["aside"], statements),
                spot_checks=_evidence(lists["spot_checks"], statements),
            )
            for one, lists in zip(facts.siblings, value["siblings"], strict=True)
        )
        evidence = _evidence(value["evidence"], statements)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise TamperingError(
            f"The facts of a decision cannot be read: {type(error).__name__}.",
            why="They were kept by their digest when it was made.",
            fix="quantgov audit verify",
        ) from error
    return replace(facts, now=now, requester=requester, evidence=evidence, siblings=siblings)


@cache
def _facts() -> TypeAdapter[Facts]:
    # Lineage names it before it is there; pydantic looks among the names of whoever builds the adapter.
    from mlflow_quantgov.checkpoint import Checkpoint  # noqa: F401

    return TypeAdapter(Facts)


@cache
def _signatures() -> TypeAdapter[tuple[Signature, ...]]:
    return TypeAdapter(tuple[Signature, ...])


def _references(evidence: Iterable[Evidence]) -> list[dict[str, Any]]:
    return [
        {
            "digest": one.digest,
            "actor": one.actor,
            "received_at": one.received_at.isoformat() if one.received_at else None,
            "noted": asdict(one.noted) if one.noted else None,
            "signatures": _signatures().dump_python(one.signatures, mode="json"),
        }
        for one in evidence
    ]


def _evidence(references: list[dict[str, Any]], statements: Mapping[str, bytes]) -> tuple[Evidence, ...]:
    found = []
    for reference in references:
        digest, received = reference["digest"], reference["received_at"]
        content = statements.get(digest)
        if content is None or sha256_digest(content) != digest:
            raise TamperingError(
                f"The statement {digest[:19]} that a decision rested on {'is gone' if content is None else 'was altered'}.",
                why="Its bytes were kept when it was taken in.",
                fix="quantgov audit verify",
            )
        statement, noted = parse_statement(content, where=digest), reference.get("noted")
        noted, said = Noted(**noted) if noted else None, statement.content()
        found.append(
            Evidence(
                statement,
                noted.fill(said) if noted else said,
                digest,
                reference["actor"],
                datetime.fromisoformat(received) if received else None,
                _signatures().validate_python(reference["signatures"]),
                noted=noted,
            )
        )
    return tuple(found)
