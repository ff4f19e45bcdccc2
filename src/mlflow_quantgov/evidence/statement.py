"""One piece of evidence about one subject digest: an in-toto Statement v1 in canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.predicates import Predicate, kind_of_type, predicate_class

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
MAX_STATEMENT_BYTES = 64 * 1024 * 1024
MAX_VALUES = 4_000_000
"""Values of a statement: in memory each takes a multiple of what it takes in the file."""
MAX_DEPTH = 64
_MOST_DIGITS = 20
"""Of a whole number: those of 64 bits, and a sign."""
_LARGEST = 1e100
"""Squares of it, summed, are still numbers."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""How the half of a character is written, alone or as one of a pair."""


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        EvidenceError: The value holds something that JSON cannot carry.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise EvidenceError(
            f"A statement holds a value that JSON cannot carry: {error}.",
            why="A statement is known by the digest of its bytes, so it must have one exact form.",
            fix="Replace NaN, infinite numbers and halves of characters, and measure again.",
        ) from error


def sha256_digest(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Subject(BaseModel):
    """What a statement is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=500)
    digest: dict[Literal["sha256"], str]

    @property
    def sha256(self) -> str:
        """`sha256:<hex>` as the rest of the package writes digests."""
        return f"sha256:{self.digest['sha256']}"


class Statement(BaseModel):
    """An in-toto Statement v1 with one subject.

    Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(STATEMENT_TYPE, alias="_type")
    subject: tuple[Subject] = Field(description="Exactly one subject: the weights digest of a model.")
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, Any]

    @classmethod
    def about(cls, digest: str, predicate: Predicate, *, name: str) -> Statement:
        """State a predicate about a digest.

        Args:
            digest: `sha256:<hex>` of the subject (the weights digest of a model).
            predicate: The typed content.
            name: Words for people, such as the model's name; nothing is decided by it.
        """
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64:
            raise EvidenceError(
                f"{digest!r} is not a sha256 digest.",
                why="Evidence is bound to exact bytes.",
                fix="quantgov inspect PATH",
            )
        return cls(
            subject=(Subject(name=name[:500], digest={"sha256": value}),),
            predicate_type=predicate.type_uri(),
            predicate=predicate.model_dump(mode="json"),
        )

    @property
    def kind(self) -> str:
        """`task-eval`, `fidelity`, ...: the short name of the predicate type."""
        return kind_of_type(self.predicate_type)

    @property
    def subject_digest(self) -> str:
        """`sha256:<hex>` of the subject."""
        return self.subject[0].sha256

    def to_bytes(self) -> bytes:
        """Canonical bytes; `digest` is theirs."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical bytes."""
        return sha256_digest(self.to_bytes())

    def content(self) -> Predicate:
        """The typed predicate, validated, with its summary recomputed from its own records.

        Raises:
            EvidenceError: The predicate does not fit its schema, or says what its records do not give.
        """
        try:
            predicate = predicate_class(self.predicate_type).model_validate(self.predicate)
        except ValidationError as error:
            raise EvidenceError(
                f"The {self.kind} statement does not fit its schema: {_first_problem(error)}.",
                why="Evidence that cannot be read cannot be judged.",
                fix=f"quantgov schema {self.kind}",
            ) from error
        try:
            predicate.verify_summary()
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise EvidenceError(
                f"The {self.kind} statement holds records from which no summary follows: {type(error).__name__}.",
                why="A verdict is computed from per-item records.",
                fix="Measure again and attach the statement unedited.",
            ) from error
        return predicate


def parse_statement(data: bytes, *, where: str = "the statement") -> Statement:
    """Read a statement from untrusted bytes and recompute everything that it claims.

    Args:
        data: JSON text of an in-toto Statement v1.
        where: What to call it in an error, usually the file's name.

    Raises:
        EvidenceError: Too large, not JSON, not a statement, or its summary is not what its records give.
    """
    if len(data) > MAX_STATEMENT_BYTES:
        raise EvidenceError(
            f"{where} has {len(data):,} bytes; at most {MAX_STATEMENT_BYTES:,} are taken in.",
            why="Reading is bounded so that a hostile statement cannot exhaust the server.",
            fix="Evaluate fewer items per statement.",
        )
    return statement_of(strict_json(data, where=where), where=where)


def strict_json(data: bytes, *, where: str) -> Any:
    """The one value that JSON text stands for.

    Raises:
        EvidenceError: Not JSON in UTF-8, an object that names a key twice, a number that is none, or more values or deeper
            ones than any statement holds.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise _unreadable(where, f"it holds more than {MAX_VALUES:,} values")
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_bounded_float,
        )
        if _HALF.search(data):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _unreadable(where, "a text in it holds half of a character") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, str(error)[:200]) from error
    if _is_deeper(found, MAX_DEPTH):
        raise _unreadable(where, f"it is nested more than {MAX_DEPTH} deep")
    return found


def statement_of(value: Any, *, where: str) -> Statement:
    """A statement from a JSON value, with everything that it claims recomputed.

    Raises:
        EvidenceError: It is not a statement, or its summary is not what its records give.
    """
    try:
        statement = Statement.model_validate(value)
    except ValidationError as error:
        raise _unreadable(where, _first_problem(error)) from error
    statement.content()
    return statement


def _unreadable(where: str, problem: str) -> EvidenceError:
    return EvidenceError(
        f"{where} is not an in-toto statement: {problem}.",
        why="Evidence that cannot be read cannot be judged.",
        fix="quantgov schema",
    )


def _is_deeper(value: Any, most: int) -> bool:
    """Whether objects and arrays stand inside each other more often than that; looked at level by level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        inner = (child for one in level for child in (one.values() if isinstance(one, dict) else one))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names a key twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that evidence may hold")


def _bounded_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits counts nothing")
    return int(digits)


def _bounded_float(text: str) -> float:
    value = float(text)
    if abs(value) > _LARGEST:
        raise ValueError(f"{text[:50]} is larger than anything that is measured")
    return value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
