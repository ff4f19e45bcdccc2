"""The seven mistakes, each committed on purpose in several ways, and good releases beside them that are let through."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from good_releases import GOOD, GPTQ
from mlflow.exceptions import MlflowException
from page import PAGE, answers, page
from way import MISTAKES, Way
from ways import WAYS, claiming
from whole_releases import Release, Shelf

from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.engine import decide

pytestmark = pytest.mark.slow  # whole releases are made, measured and judged

Open = Callable[..., Shelf]


def test_every_mistake_is_committed_in_three_ways_or_more() -> None:
    assert all(sum(one.mistake == mistake for one in WAYS) >= 3 for mistake in MISTAKES)


@pytest.mark.parametrize("release", GOOD, ids=lambda one: one.name)
def test_a_good_release_is_let_through(shelf: Open, release: Release) -> None:
    found = shelf(release.policy)
    version = found.put(release)
    decision = found.decide(version)
    assert decision.allowed, decision.one_line()
    assert [one.answer for one in decision.self_audit] == ["yes"] * 5
    found.promote(version)
    assert str(found.store.get_model_version_by_alias("chat", "champion").version) == version


@pytest.mark.parametrize("way", WAYS, ids=lambda one: f"{one.mistake}: {one.name}")
def test_a_mistake_is_refused_for_its_own_reason(shelf: Open, way: Way) -> None:
    found = shelf(way.release.policy)
    version = found.put(way.release)
    decision = found.decide(version)
    refusing = {one.check: one for one in decision.checks if one.refuses}
    assert not decision.allowed and set(refusing) == {way.check, *way.also}, decision.one_line()
    check, fix = refusing[way.check], way.fix.replace("chat/2", f"chat/{version}")
    said = (check.outcome, way.words in check.reason, fix in check.fix)
    assert said == (way.outcome, True, True), (check.outcome, check.reason, check.fix)
    no = [number for number, one in enumerate(decision.self_audit, start=1) if one.answer == "no"]
    assert no == list(answers(way))
    assert any(way.words in decision.self_audit[number - 1].why for number in no), decision.self_audit
    first = next(one for one in decision.checks if one.refuses)
    assert first.check == way.check and f"Fix: {' '.join(check.fix.split())}" in decision.one_line()


FIRST = [next(one for one in WAYS if one.mistake == mistake) for mistake in MISTAKES]


@pytest.mark.parametrize("way", FIRST, ids=lambda one: f"{one.mistake}: {one.name}")
def test_the_door_and_the_page_give_this_reason_and_its_remedy_first(shelf: Open, way: Way) -> None:
    found = shelf(way.release.policy)
    version = found.put(way.release)
    with pytest.raises(MlflowException, match="quantgov refused") as refused:
        found.promote(version)
    facts = found.facts(version)
    decision = decide(found.store.quantgov_policy(), facts, "@champion")
    check = next(one for one in decision.checks if one.check == way.check)
    assert f"(1) {way.check} {way.outcome}: " in str(refused.value)
    assert f"Fix: {' '.join(check.fix.split())}" in str(refused.value)
    assert way.words in unescape(render_report(facts, decision, title="chat"))


def test_a_configuration_that_claims_more_bits_than_the_tensors_have(shelf: Open, tmp_path: Path) -> None:
    """Nothing else can be said of files of which nobody knows what they are, and nothing else is."""
    found = shelf()
    version = found.put_unread(GPTQ, claiming(tmp_path))
    decision = found.decide(version)
    said = {one.check: one.reason for one in decision.checks if one.refuses}
    words = "config.json of model claims 4 bit, its tensors have 3 bit."
    assert said.pop("identity") == words and said.pop("bit-width") == f"Not measured: {words}"
    assert set(said.values()) == {"Not measured: the files could not be read (identity says why)."}
    assert [one.answer for one in decision.self_audit] == ["no"] * 5 and words in decision.self_audit[2].why
    assert decision.exit_code == 1 and "Fix: quantgov inspect" in decision.one_line()
    with pytest.raises(MlflowException, match="claims 4 bit, its tensors have 3 bit"):
        found.promote(version)


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/policy/seven_mistakes/page.py"
