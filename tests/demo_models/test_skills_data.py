from __future__ import annotations

import json
import random
import shutil

import pytest

from mlflow_quantgov.demo.models import SKILLS_TASKS, skills_data


def test_shipped_items_are_those_that_the_generator_makes(tmp_path):
    for made in skills_data.write(tmp_path):
        assert made.read_bytes() == (SKILLS_TASKS / made.name).read_bytes()


@pytest.mark.parametrize("skill", sorted(skills_data.SKILLS))
def test_items_are_distinct_and_enough(skill):
    items = skills_data.items(skill)
    assert len({item["prompt"] for item in items}) == len({item["id"] for item in items}) == 300


def test_sums_are_right():
    for item in skills_data.items("addition"):
        left, right = item["prompt"].rstrip("=").split("+")
        assert int(left[::-1]) + int(right[::-1]) == int(item["answer"][::-1])
        assert len(item["answer"]) == 5


def test_copies_and_reversals_are_right():
    for item in skills_data.items("copying"):
        assert item["prompt"] == f"c:{item['answer']}="
    for item in skills_data.items("reversal"):
        assert item["prompt"] == f"r:{item['answer'][::-1]}="


def test_text_is_drawn_anew_for_each_seed():
    assert skills_data.held_out_text() != skills_data.held_out_text(seed=2)
    sentences = {skills_data.sentence(random.Random(i)) for i in range(200)}
    assert len(sentences) > 190
    assert all(text.endswith(".") and "  " not in text for text in sentences)


@pytest.mark.slow
def test_lm_eval_loads_the_tasks_and_scores_an_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    tasks = pytest.importorskip("lm_eval.tasks")
    folder = shutil.copytree(SKILLS_TASKS, tmp_path / "tasks")
    monkeypatch.chdir(folder)
    found = tasks.get_task_dict(["addition"], tasks.TaskManager(include_path=str(folder), include_defaults=False))[
        "addition"
    ]
    docs = list(found.test_docs())
    assert len(docs) == 300
    assert docs[0] == json.loads((folder / "addition.jsonl").read_text().splitlines()[0])
    assert found.doc_to_text(docs[0]) == docs[0]["prompt"]
    assert found.process_results(docs[0], [docs[0]["answer"]]) == {"exact": 1.0}
    assert found.process_results(docs[0], ["12"]) == {"exact": 0.0}
