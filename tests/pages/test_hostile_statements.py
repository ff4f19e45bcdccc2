"""Statements that nobody measured: refused with one clear error, or judged and shown without a defect."""

from __future__ import annotations

import base64
import copy
import json
import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import NOW, benchmark_alone, benchmark_v1, contents, evidence, facts_of, fidelity, task_eval, watched

from mlflow_quantgov.errors import EvidenceError, visible
from mlflow_quantgov.evidence.predicates import predicate_class
from mlflow_quantgov.evidence.signing import read_attached
from mlflow_quantgov.evidence.statement import MAX_DEPTH, MAX_VALUES
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Evidence
from mlflow_quantgov.policy.loader import load_policy

GOOD: dict[str, Any] = json.loads(evidence(task_eval()).statement.to_bytes())
SIGNATURE = base64.b64encode(b"s" * 64).decode()


def refused(data: bytes) -> str:
    """The one line that a statement is refused with."""
    with pytest.raises(EvidenceError) as caught:
        read_attached(data, where="s.json").statement.content()
    line = caught.value.one_line()
    assert visible(line, keep="") == line and "Fix: " in line and len(line) < 1000
    return line


def changed(*path: Any, to: Any) -> bytes:
    """The good statement with one value in another's place, and the summary that follows."""
    value = copy.deepcopy(GOOD)
    place: Any = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return with_summary(value)


def with_summary(value: dict[str, Any]) -> bytes:
    """As its author would send it: with the summary that the records give, where they give one."""
    try:
        found = predicate_class(value["predicateType"]).model_validate({**value["predicate"], "summary": {}})
        value["predicate"]["summary"] = found.recompute()
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, EvidenceError):
        pass
    return json.dumps(value).encode()


def envelope(**changes: Any) -> bytes:
    payload = base64.b64encode(json.dumps(GOOD).encode()).decode()
    value = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": SIGNATURE}]}
    return json.dumps(value | changes).encode()


ITEM = ("predicate", "tasks", 0, "items", 0)
BAD = {
    "nothing": b"",
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "a mark of order": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 50,
    "zip": b"PK\x03\x04" + b"\0" * 50,
    "a key twice": b'{"a": {"b": 1, "b": 2}}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "infinity in digits": b'{"a": 1e999}',
    "a float of 10,000 digits": b'{"a": 0.' + b"9" * 10_000 + b"e400}",
    "a number of 10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "too deep": b'{"a": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
    "far too deep": b"[" * 200_000,
    "objects far too deep": b'{"a":' * 100_000,
    "too many values": b"[" + b"0," * MAX_VALUES + b"0]",
    "half a character": b'{"a": "\\ud800"}',
    "half a character in a key": b'{"\\udfff": 1}',
    "a score beyond numbers": changed(*ITEM, "parent", "score", to=10**400),
    "a score beyond measure": changed(*ITEM, "parent", "score", to=1e308),
    "a score that is text": changed(*ITEM, "parent", "score", to=[1]),
    "an item twice": changed(*ITEM, "id", to="1"),
    "a count beyond numbers": changed(*ITEM, "choices", to=10**30),
    "a setting too deep": changed("predicate", "settings", "a", to=json.loads("[" * 100 + "]" * 100)),
    "a time beyond time": changed("predicate", "provenance", "measured_at", to=10**30),
    "a time without a zone": changed("predicate", "provenance", "measured_at", to="2026-01-01T00:00:00"),
    "an unknown kind": changed("predicateType", to="https://mlflow-quantgov.github.io/predicates/none/v1"),
    "an unknown version": changed("predicateType", to="https://mlflow-quantgov.github.io/predicates/task-eval/v99"),
    "a kind that steers": changed("predicateType", to="\x1b[31m" * 5000),
    "a kind that is a list": changed("predicateType", to=["a"]),
    "a name of a million": changed("subject", 0, "name", to="n" * 1_000_000),
    "many subjects": changed("subject", to=GOOD["subject"] * 1000),
    "signatures by the thousand": envelope(signatures=[{"sig": SIGNATURE}] * 5000),
    "a payload that is none": envelope(payload="="),
    "a payload of spaces": envelope(payload=" " * 1000),
    "a payload within a payload": envelope(payload=base64.b64encode(envelope()).decode()),
    "a key id that steers": envelope(signatures=[{"sig": SIGNATURE, "keyid": "\x1b[31m"}]),
    "a key id of another direction": envelope(signatures=[{"sig": SIGNATURE, "keyid": "\u202ea"}]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_statement_is_one_clear_error(kind: str) -> None:
    assert read_attached(json.dumps(GOOD).encode()).statement.digest
    refused(BAD[kind])


def test_a_summary_of_another_size_than_numbers_is_no_defect() -> None:
    for value in (2**63, -(2**63), 1e99, True, None, "1", [], {}):
        data = copy.deepcopy(GOOD)
        data["predicate"]["summary"]["task-edge-cases"]["parent_mean"] = value
        refused(json.dumps(data).encode())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*GOOD, "payload", "x"]), inner),
)


@settings(max_examples=60)
@given(_json | st.binary(max_size=50))
def test_no_bytes_and_no_json_break_the_reader(value: Any) -> None:
    refused(value if isinstance(value, bytes) else json.dumps(value).encode())


VALUES = (
    1e99, -1e99, 5e-324, 2**63, -(2**63), 10**18, -1, 0, -0.0, 0.5, 1.0000001, "", [], {}, None, True, "\x1b[31m",
    "<script>ran()</script>", "{{7*7}}", "\u202eleft", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something could be put in another's place; of lists, the ends."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        if isinstance(value, dict) or key in {0, len(value) - 1}:
            yield from places(one, (*path, key))


def judged_and_shown(data: bytes, kind: str) -> bool:
    """Whether a statement is taken; then a decision and a report of it are made."""
    try:
        statement = read_attached(data).statement
        content = statement.content()
    except EvidenceError:
        return False
    rest = tuple(evidence(one) for one in contents() if kind != one.KIND)
    made = Evidence(statement, content, statement.digest, "somebody", NOW)
    facts = replace(facts_of([]), evidence=(*rest, made))
    decision = decide(load_policy(), facts, "@champion")
    json.dumps(decision.to_dict(), allow_nan=False)
    line, page = decision.one_line(), render_report(facts, decision, title="t")
    assert "\n" not in line and "<script" not in page and "\u202e" not in page and "\x1b" not in page
    return True


def disturb(number: int, seed: int) -> int:
    """Put so many wrong values into each kind of statement; returns how many were taken all the same."""
    rng, taken = random.Random(seed), 0
    for content in (*contents(), watched(), fidelity(2000, 10), benchmark_alone(), benchmark_v1()):
        good = json.loads(evidence(content).statement.to_bytes())
        spots = [path for path in places(good["predicate"]) if path[0] != "summary"]
        for _ in range(number):
            value = copy.deepcopy(good)
            place: Any = value["predicate"]
            *way, last = rng.choice(spots)
            for key in way:
                place = place[key]
            place[last] = rng.choice(VALUES)
            taken += judged_and_shown(with_summary(value), content.KIND)
    return taken


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_wrong_value_in_a_record_is_a_defect() -> None:
    assert disturb(8, seed=1) > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(3))
def test_no_wrong_value_in_any_record_is_a_defect(seed: int) -> None:
    with warnings.catch_warnings():
        assert disturb(100, seed=100 + seed) > 50
