"""What would pass without being like production: words shuffled, copies reworded, one text many times, chosen documents."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.evidence.likeness import PHRASES
from mlflow_quantgov.evidence.measure.calibration import assess, compare_files, sampling
from mlflow_quantgov.evidence.measure.calibration.overlap import shared
from mlflow_quantgov.evidence.measure.calibration.phrases import phrase_scores
from mlflow_quantgov.evidence.measure.calibration.sampling import sample, unrepresented
from mlflow_quantgov.evidence.measure.calibration.views import compare_texts

Write = Callable[..., Path]
texts = st.lists(st.text(max_size=30), min_size=1, max_size=12)


def of_phrases(calibration: Sequence[str], production: Sequence[str]) -> tuple[str, float]:
    found = compare_texts(sample(calibration), sample(production))
    test = next(one for one in found if one.name == PHRASES).judged(len(found))
    return test["outcome"], test["estimate"]


def in_another_order(text: str) -> str:
    words = text.split()
    random.Random(text).shuffle(words)
    return " ".join(words)


def without_every_fifth_word(text: str) -> str:
    return " ".join(word for at, word in enumerate(text.split()) if at % 5 != 4)


def test_another_sample_has_productions_phrases(python_texts: list[str], support_texts: list[str]) -> None:
    for some in (python_texts, support_texts):
        assert of_phrases(some[:100], some[100:200])[0] == "pass"


@pytest.mark.parametrize("copied", [True, False])
def test_productions_words_in_another_order_fail(python_texts: list[str], copied: bool) -> None:
    production = python_texts[100:200]
    shuffled = [in_another_order(text) for text in (production if copied else python_texts[:100])]
    assert of_phrases(shuffled, production)[0] == "fail"


def test_copies_that_miss_every_fifth_word_fail(python_texts: list[str], write_jsonl: Write) -> None:
    """No five words in a row stay together, so that nothing is found as a copy."""
    reworded = [without_every_fifth_word(text) for text in python_texts[:150]]
    reworded = [text for text in reworded if len(text.split()) > 20]
    found = compare_files(
        write_jsonl("a.jsonl", reworded), write_jsonl("b.jsonl", python_texts[:150]), expectations=False
    )
    assert found["outcome"] == "fail"
    test = next(one for one in found["tests"] if one["name"] == PHRASES)
    assert test["outcome"] == "fail" and test["estimate"] > 0.9


@given(texts, st.lists(st.text(max_size=30), min_size=2, max_size=12), st.integers(0, 99))
def test_phrase_scores_are_shares_and_do_not_depend_on_order(left: list[str], right: list[str], seed: int) -> None:
    scores = phrase_scores(left, right)
    assert all(0 <= one <= 1 for side in scores for one in side)
    assert tuple(map(len, scores)) == (len(left), len(right))
    mixed = random.Random(seed).sample(right, len(right))
    again = phrase_scores(left, mixed)
    assert again[0] == scores[0] and sorted(again[1]) == sorted(scores[1])


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["copies", "one long document"])
def test_what_was_not_compared_does_not_pass(
    python_texts: list[str], support_texts: list[str], write_jsonl: Write, extra: str
) -> None:
    """One text of another domain, seen by the quantizer more than all others, moved no mean of different documents."""
    foreign = support_texts[:1] * 1500 if extra == "copies" else ["\n".join(support_texts) * 4]
    production = write_jsonl("b.jsonl", python_texts[150:300])
    found = compare_files(write_jsonl("a.jsonl", python_texts[:150] + foreign), production, expectations=False)
    assert found["outcome"] == "inconclusive"
    assert "was not compared" in found["reason"]
    twice = compare_files(write_jsonl("a.jsonl", python_texts[:150] * 2), production, expectations=False)
    assert twice["outcome"] == "pass"


@given(texts.filter(any), st.integers(1, 4))
def test_the_unrepresented_share_ignores_what_changes_no_weight(documents: list[str], times: int) -> None:
    share = unrepresented(documents)
    assert 0 <= share <= 1
    assert unrepresented(documents[::-1] * times) == share
    if len(set(documents)) == len(documents):
        assert share == 0


def test_compared_documents_cannot_be_made_by_their_own_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,000 documents those with a small digest were compared: 20 are made to have one, by a number at their end."""
    monkeypatch.setattr(sampling, "MAX_DOCUMENTS", 100)

    def early(text: str) -> str:
        tries = (f"{text} {number}" for number in range(10**6))
        return next(one for one in tries if hashlib.sha256(one.encode()).digest() < b"\x01")

    wanted = {early(f"wanted {number}") for number in range(20)}
    others = [f"other {number}" for number in range(4000)]
    assert len(wanted.intersection(sample([*others, *wanted]))) < 5


def test_invisible_signs_hide_no_copy(python_texts: list[str]) -> None:
    """A zero-width space within every third word or so."""
    hidden = [text.replace("e", "e\u200b") for text in python_texts[:40]]
    assert shared(hidden, python_texts[:40]) == shared(python_texts[:40], python_texts[:40]) > 30


def test_texts_that_traffic_repeats_are_no_copies(python_texts: list[str]) -> None:
    """One text in twenty is sent twice; where both go is chance."""
    traffic = [*python_texts[:380], *python_texts[:20]]
    alarms = 0
    for seed in range(12):
        mixed = random.Random(seed).sample(traffic, len(traffic))
        alarms += shared(mixed[:200], mixed[200:]) > 0
    assert alarms <= 3  # 0.6 are expected at most
    production = mixed[200:]
    copies = production[:60] + [text for text in mixed[:200] if text not in production][:100]
    assert shared(copies, production) >= 60


def test_a_statement_that_does_not_say_how_much_was_compared_does_not_pass(
    python_texts: list[str], write_jsonl: Write
) -> None:
    found = assess(
        write_jsonl("a.jsonl", python_texts[:150]), write_jsonl("b.jsonl", python_texts[150:300]), expectations=False
    )
    assert found.recompute()["outcome"] == "pass"
    silent = found.model_copy(update={"data": found.data.model_copy(update={"unrepresented": None})})
    assert silent.recompute()["outcome"] == "inconclusive"
