"""The seven mistakes, each committed on purpose in several ways, and good releases beside them that are let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from good_releases import GOOD
from mlflow.exceptions import MlflowException
from ways import MISTAKES, WAYS, Way
from whole_releases import Release, Shelf

from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.audit import QUESTIONS

Open = Callable[..., Shelf]


def test_every_mistake_is_committed_in_three_ways_or_more() -> None:
    assert all(sum(one.mistake == mistake for one in WAYS) >= 3 for mistake in MISTAKES)


@pytest.mark.parametrize("release", GOOD, ids=[one.name for one in GOOD])
def test_a_good_release_is_let_through(shelf: Open, release: Release) -> None:
    found = shelf(release.policy)
    version = found.put(release)
    decision = found.decide(version)
    assert decision.allowed, decision.one_line()
    assert [one.answer for one in decision.self_audit] == ["yes"] * 5
    found.promote(version)
    assert str(found.store.get_model_version_by_alias("chat", "champion").version) == version


@pytest.mark.parametrize("way", WAYS, ids=[f"{one.mistake}: {one.name}" for one in WAYS])
def test_a_mistake_is_refused_for_its_own_reason(shelf: Open, way: Way) -> None:
    found = shelf(way.release.policy)
    version = found.put(way.release)
    decision = found.decide(version)
    refusing = {one.check: one for one in decision.checks if one.refuses}
    assert not decision.allowed and set(refusing) == {way.check, *way.also}, decision.one_line()
    check = refusing[way.check]
    assert (check.outcome, way.words in check.reason, way.fix.replace("chat/2", f"chat/{version}") in check.fix) == (
        way.outcome, True, True,
    ), (check.outcome, check.reason, check.fix)  # fmt: skip
    for question, answer in zip(QUESTIONS, decision.self_audit, strict=True):
        assert answer.answer == ("no" if set(question[1]) & set(refusing) else "yes"), answer
    assert any(answer.answer == "no" and check.reason[20:60] in answer.why for answer in decision.self_audit)
    # The door says the same, and so does the page.
    with pytest.raises(MlflowException, match="quantgov refused") as refused:
        found.promote(version)
    assert "Fix: " in str(refused.value) and way.check in str(refused.value)
    page = render_report(found.facts(version), decision, title="chat")
    assert way.check in page
