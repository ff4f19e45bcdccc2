"""Statements survive a round trip unchanged, and nothing edited, oversized or malformed is taken in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence import statement as module
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.statement import Statement, canonical_json, parse_statement, sha256_digest

SUBJECT = "sha256:" + "c" * 64
SAME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@SAME
@given(parent=scores)
def test_a_statement_survives_the_round_trip(task_eval: Callable[..., TaskEval], parent: list[float]) -> None:
    made = Statement.about(SUBJECT, task_eval(parent, [one / 2 for one in parent]), name="m")
    read = parse_statement(made.to_bytes())
    assert read == made
    assert read.digest == made.digest == sha256_digest(made.to_bytes())
    assert read.subject_digest == SUBJECT
    assert read.content().recompute() == made.content().recompute()


@SAME
@given(parent=scores, data=st.data())
def test_one_edited_score_is_found_out(
    task_eval: Callable[..., TaskEval], parent: list[float], data: st.DataObject
) -> None:
    value = json.loads(Statement.about(SUBJECT, task_eval(parent, parent), name="m").to_bytes())
    items = value["predicate"]["tasks"][0]["items"]
    place = data.draw(st.integers(0, len(items) - 1))
    items[place]["quantized"]["score"] += 1e4 * len(items)
    with pytest.raises(EvidenceError, match=r"summary\.t\."):
        parse_statement(json.dumps(value).encode())


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p["tasks"][0]["items"].append(p["tasks"][0]["items"][0]),
        lambda p: p["tasks"].append(p["tasks"][0]),
        lambda p: p["tasks"][0]["items"].clear(),
        lambda p: p.update(extra=1),
        lambda p: p["tasks"][0].update(task_digest="md5:1"),
        lambda p: p["parent"].pop("weights"),
        lambda p: p["summary"].update(more=1),
        lambda p: p["summary"].clear(),
        lambda p: p["tasks"][0]["items"][0]["parent"].update(score="1.0e999"),
        lambda p: p["tasks"][0]["items"][0].update(prompt_sha256="x"),
    ],
)
def test_malformed_records_are_refused(task_eval: Callable[..., TaskEval], edit: Callable[[Any], Any]) -> None:
    value = json.loads(Statement.about(SUBJECT, task_eval([1, 0], [1, 1]), name="m").to_bytes())
    edit(value["predicate"])
    with pytest.raises(EvidenceError) as caught:
        parse_statement(json.dumps(value).encode())
    assert caught.value.fix


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_lacks_are_refused(task_eval: Callable[..., TaskEval], number: str) -> None:
    data = Statement.about(SUBJECT, task_eval([1, 0], [1, 1]), name="m").to_bytes()
    assert b'"score":1.0' in data
    with pytest.raises(EvidenceError):
        parse_statement(data.replace(b'"score":1.0', b'"score":' + number.encode(), 1))


def test_a_key_named_twice_is_refused(task_eval: Callable[..., TaskEval]) -> None:
    data = Statement.about(SUBJECT, task_eval([1, 0], [1, 1]), name="m").to_bytes()
    with pytest.raises(EvidenceError, match="twice"):
        parse_statement(data.replace(b'"score":1.0', b'"score":0.0,"score":1.0', 1))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"_type": 1}'])
def test_what_is_no_statement_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_statement(data, where="x.json")
    assert caught.value.what.startswith("x.json") or "schema" in caught.value.what


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        parse_statement(data)


def test_too_many_bytes_are_refused_unread(monkeypatch: pytest.MonkeyPatch, task_eval: Callable[..., TaskEval]) -> None:
    data = Statement.about(SUBJECT, task_eval([1], [1]), name="m").to_bytes()
    monkeypatch.setattr(module, "MAX_STATEMENT_BYTES", len(data))
    parse_statement(data)
    monkeypatch.setattr(module, "MAX_STATEMENT_BYTES", len(data) - 1)
    with pytest.raises(EvidenceError, match="bytes"):
        parse_statement(data)


def test_an_unknown_kind_is_named(task_eval: Callable[..., TaskEval]) -> None:
    value = json.loads(Statement.about(SUBJECT, task_eval([1], [1]), name="m").to_bytes())
    value["predicateType"] = value["predicateType"].replace("/v1", "/v9")
    with pytest.raises(EvidenceError, match="not known"):
        parse_statement(json.dumps(value).encode())


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:abc", "md5:" + "a" * 64, "a" * 64])
def test_a_subject_needs_a_real_digest(task_eval: Callable[..., TaskEval], digest: str) -> None:
    with pytest.raises(EvidenceError, match="digest"):
        Statement.about(digest, task_eval([1], [1]), name="m")


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=6))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_canonical_json_refuses_what_json_cannot_carry() -> None:
    for value in ({"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}):
        with pytest.raises(EvidenceError):
            canonical_json(value)


def test_half_a_character_is_refused_and_not_a_crash(task_eval: Callable[..., TaskEval]) -> None:
    """JSON can spell a lone surrogate; no bytes can."""
    made = Statement.about(SUBJECT, task_eval([1], [1]), name="m").to_bytes()
    for place, broken in ((b'"name":"m"', b'"name":"\\ud800"'), (b'"settings":{}', b'"settings":{"a":"\\ud800"}')):
        assert place in made
        with pytest.raises(EvidenceError):
            parse_statement(made.replace(place, broken)).to_bytes()
