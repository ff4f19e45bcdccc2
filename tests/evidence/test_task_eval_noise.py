"""The parent asked twice: where it has to be, on which items, and that the CPU repeats itself bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.evidence.measure.determinism import determinism_of
from mlflow_quantgov.evidence.measure.task_eval import evaluate
from mlflow_quantgov.evidence.measure.tasks import load_tasks
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.statement import Statement, parse_statement

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
HERE = RuntimeFacts("llama.cpp", "1", "xllamacpp 1", "CPU_REPACK q8_0", False, 1, {}, "own-files", {"threads": 2})


@pytest.mark.parametrize(
    ("changes", "repeats"),
    [
        ({}, True),
        ({"kernel": "CPU"}, True),
        ({"kernel": "CUDA0"}, False),
        ({"kernel": None}, False),
        ({"kernel": None, "settings": {"system_info": "CPU : SSE3 = 1 | AVX = 1 |"}}, True),
        ({"kernel": None, "settings": {"system_info": "CUDA : ARCHS = 900 | CPU : SSE3 = 1 |"}}, False),
        ({"kernel": "CUDA0", "settings": {"system_info": "CPU : SSE3 = 1 |"}}, False),
        ({"runtime": "transformers", "kernel": None, "settings": {"device": "cpu"}}, True),
        ({"runtime": "transformers", "kernel": None, "settings": {"device": "cuda"}}, False),
        ({"runtime": "somebody's", "kernel": None, "settings": {"device": "cpu"}}, False),
        ({"saw_bytes": False}, False),
    ],
)
def test_only_what_is_known_to_repeat_counts_as_deterministic(changes: dict[str, Any], repeats: bool) -> None:
    found = determinism_of(replace(HERE, **changes))
    assert found.deterministic is repeats and found.why


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["llama.cpp", "transformers"])
def test_the_cpu_repeats_itself_whatever_the_neighbours_of_an_item(
    skills: Path, skills_q8: Path, skills_tasks: Path, tmp_path: Path, runtime: str
) -> None:
    """The second time the items stand in other batches, since only some of them are asked again."""
    quantized = skills_q8 if runtime == "llama.cpp" else skills
    found = evaluate(
        skills, quantized, parent_weights=DIGEST, quantized_weights=OTHER, tasks=skills_tasks, runtime=runtime, limit=80,
        repeats=30, settings={"threads": 1}, cache=tmp_path,
    )  # fmt: skip
    for task in found.tasks:
        numbers = found.summary[task.task]
        assert (numbers["asked_twice"], numbers["parent_flips"]) == (30, 0)
        again = [number for number, item in enumerate(task.items) if item.parent_again is not None]
        assert again[0] == 0 and again[-1] > 70, "the items that are asked again are spread over the task"
    assert found.settings["determinism"]["parent"]["deterministic"]
    assert parse_statement(Statement.about(OTHER, found, name="m").to_bytes()).content() == found
    found.verify_summary()


@pytest.mark.slow
def test_a_cpu_is_not_asked_twice_unless_somebody_wants_it(skills_q8: Path, skills_tasks: Path, tmp_path: Path) -> None:
    found = evaluate(
        skills_q8,
        skills_q8,
        parent_weights=DIGEST,
        quantized_weights=OTHER,
        tasks=skills_tasks,
        limit=3,
        cache=tmp_path,
    )
    assert isinstance(found, TaskEval)
    assert all(item.parent_again is None for task in found.tasks for item in task.items)
    assert len(load_tasks(skills_tasks)) == len(found.tasks)
