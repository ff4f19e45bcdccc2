"""The page about other gates says what follows from the measured records, and each rule is applied as its source states it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import MetricThreshold

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import field_gates
import field_gates_rules as rules
from field_gates_tasks import knowledge_items, recall_items

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "field-gates.md"


def scores(right: int, items: int) -> list[float]:
    return [1.0] * right + [0.0] * (items - right)


def rule(name: str) -> rules.Rule:
    return next(one for one in rules.RULES if one.name == name)


@pytest.mark.parametrize(
    ("name", "parent", "passing", "refused"),
    [
        ("vLLM", 100, 93, 92),  # 8 % of the measured score, on both sides
        ("vLLM", 100, 108, 109),
        ("llm-compressor", 100, 95, 94),
        ("llm-compressor", 1000, 946, 944),  # rounded to whole per cent first
        ("Neural Compressor", 100, 99, 98),
        ("NNCF", 100, 99, 97),
        ("lm-eval z test", 100, 81, 80),
        ("MLflow", 100, 100, 99),
    ],
)
def test_each_rule_turns_where_its_source_says(name: str, parent: int, passing: int, refused: int) -> None:
    items = 1500 if parent == 1000 else 200
    one = rule(name)
    assert one.passes(scores(parent, items), scores(passing, items))
    assert not one.passes(scores(parent, items), scores(refused, items))


def test_equal_scores_pass_everything() -> None:
    same = scores(70, 100)
    assert all(one.passes(same, same) for one in rules.RULES)
    assert rule("lm-eval z test").passes(scores(10, 10), scores(10, 10))  # no variance at all


def test_mlflow_cannot_be_told_how_much_may_be_lost() -> None:
    with pytest.raises(MlflowException):
        MetricThreshold(min_relative_change=-0.01, greater_is_better=True)


def test_the_page_says_what_the_records_give() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(rules.START)[2].partition(rules.END)[0].strip()
    assert written == field_gates.tables(rules.read_records(field_gates.RECORDS)), (
        "run benchmarks/field_gates.py --write"
    )


def test_every_rule_of_the_tables_has_its_source_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(rules.START)[0]
    for name in (*(one.name for one in rules.RULES), "average recovery", "perplexity", "ours"):
        assert f"| {name} | " in text


def test_the_records_are_small_and_hold_the_same_items_on_both_sides() -> None:
    assert field_gates.RECORDS.stat().st_size < 100_000
    records = rules.read_records(field_gates.RECORDS)
    assert [one["name"] for one in records["artifacts"]] == list(field_gates.KINDS)
    counts = {task: len(signs) for task, signs in records["parents"]["llama.cpp"]["scores"].items()}
    for one in records["artifacts"]:
        assert {task: len(signs) for task, signs in one["scores"].items()} == counts
    assert all(count >= 149 for count in counts.values())  # fewer could never pass by the default policy


def test_the_tasks_ask_nothing_twice_and_have_one_right_answer() -> None:
    asked = [item["prompt"] for item in recall_items()] + [str(item["query"]) for item in knowledge_items()]
    assert len(asked) == len(set(asked))
    for item in knowledge_items():
        choices = item["choices"]
        assert isinstance(choices, list) and len(set(choices)) == 4
    for item in recall_items():
        assert item["answer"] in item["prompt"]


def test_kinds_that_are_not_measured_again_keep_their_records() -> None:
    kept = rules.read_records(field_gates.RECORDS)
    newer = kept | {"measured_at": "2027-01-01T00:00+00:00", "versions": {"new": "1"}}
    newer["artifacts"] = [kept["artifacts"][1] | {"bits_per_weight": 1.0}]
    found = field_gates.joined(kept, newer)
    assert [one["name"] for one in found["artifacts"]] == [one["name"] for one in kept["artifacts"]]
    assert [one["bits_per_weight"] == 1.0 for one in found["artifacts"]].count(True) == 1
    assert found["versions"] == kept["versions"] | {"new": "1"}
    with pytest.raises(ValueError, match="other tasks or another parent"):
        field_gates.joined(kept, newer | {"tasks": {}})
