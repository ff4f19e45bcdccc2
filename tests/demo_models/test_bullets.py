from __future__ import annotations

import pytest

from mlflow_quantgov.demo.models import bullets
from mlflow_quantgov.demo.tasks.smollm2 import utils


def test_shipped_items_are_those_that_are_made(tmp_path):
    assert bullets.write(tmp_path / "items.jsonl").read_bytes() == bullets.FILE.read_bytes()


def test_items_are_distinct_enough_and_ask_for_three_points():
    items = bullets.items()
    assert len({item["prompt"] for item in items}) == len({item["id"] for item in items}) == 300
    assert all(item["prompt"].endswith(bullets.CONSTRAINT) and "3" in bullets.CONSTRAINT for item in items)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("* a\n* b\n* c", 3),
        ("Sure:\n- a\n  - b\n• c\n", 3),
        ("* * *\n* * *", 2),
        ("**bold** text\n* a", 1),
        ("1. a\n2. b\n3. c", 0),
        ("*\n*\n* ", 0),
        ("", 0),
        ("a * b * c", 0),
    ],
)
def test_bullets_are_lines_that_start_with_a_mark_and_say_something(text, count):
    assert utils.count_bullets(text) == count


def test_one_point_for_exactly_three():
    assert utils.process_results({}, ["* a\n* b\n* c"]) == {"exact_bullets": 1.0}
    assert utils.process_results({}, ["* a\n* b\n* c\n* d"]) == {"exact_bullets": 0.0}
    assert utils.process_results({}, [""]) == {"exact_bullets": 0.0}
