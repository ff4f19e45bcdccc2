"""An evaluation that was killed goes on at the batch where it stopped, and states the very same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.evidence.measure.cache import BatchCache
from mlflow_quantgov.evidence.measure.task_eval import evaluate

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
RUN = """
import sys
from pathlib import Path
from mlflow_quantgov.evidence.measure.task_eval import evaluate
parent, quantized, tasks, cache, a, b = sys.argv[1:]
evaluate(Path(parent), Path(quantized), parent_weights=a, quantized_weights=b, tasks=Path(tasks), cache=Path(cache),
         settings={"threads": 1})
print("done")
"""


def whole(skills: Path, quantized: Path, tasks: Path, cache: Path, said: list[str] | None = None) -> Any:
    return evaluate(
        skills, quantized, parent_weights=DIGEST, quantized_weights=OTHER, tasks=tasks, cache=cache,
        settings={"threads": 1}, progress=lambda text, _: said.append(text) if said is not None else None,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_stopped(
    skills: Path, skills_q8: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "killed"
    arguments = [str(one) for one in (skills, skills_q8, skills_tasks, cache, DIGEST, OTHER)]
    for wanted in (2, 4):  # killed twice
        with subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE) as process:
            until = time.monotonic() + 240
            while len(list(cache.glob("batches/*/*.json"))) < wanted and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None and process.stdout.read() == b""
    assert not list(cache.glob("answers/*.json"))
    # An answer that is changed by hand turns up in the statement, so kept batches are really taken.
    altered = Path(shutil.copytree(cache, tmp_path / "altered"))
    batch = next(iter(altered.glob("batches/*/*.json")))
    batch.write_text(json.dumps(["altered", *json.loads(batch.read_text())[1:]]), encoding="utf-8")
    found = whole(skills, skills_q8, skills_tasks, altered)
    assert "altered" in {item.parent.output for task in found.tasks for item in task.items}

    said: list[str] = []
    resumed = whole(skills, skills_q8, skills_tasks, cache, said)
    fresh = whole(skills, skills_q8, skills_tasks, tmp_path / "fresh")
    same = {"provenance": fresh.provenance}
    assert resumed.model_copy(update=same) == fresh
    assert not list(cache.glob("batches/*")), "batches are left behind"
    assert said[0].startswith("parent: 3 tasks, ") and "items" in said[0]


def test_a_batch_that_does_not_read_or_is_old_is_asked_again(tmp_path: Path) -> None:
    def asked_again(oldest: float | None = None) -> bool:
        cache = BatchCache(tmp_path, ["identity"], oldest)
        assert cache.answer("generate", ["a", "b"], lambda: ["x", "y"]) == ["x", "y"]
        return cache.asked == 2 and cache.taken == 0

    assert asked_again() and not asked_again()
    (path,) = tmp_path.glob("batches/*/*.json")
    for broken in ("", "[", '["x"]', "{}", "[" * 100_000):
        path.write_text(broken)
        assert asked_again() and not asked_again()
    assert asked_again(oldest=0.0)
    assert not list(tmp_path.glob("batches/*/*.part"))


def test_only_the_very_same_batch_is_taken(tmp_path: Path) -> None:
    one, other = BatchCache(tmp_path, ["model"]), BatchCache(tmp_path, ["another"])
    one.answer("generate", ["a"], lambda: ["x"])
    assert one.answer("generate", ["a", "b"], lambda: ["1", "2"]) == ["1", "2"]
    assert one.answer("score", ["a"], lambda: ["s"]) == ["s"]
    assert other.answer("generate", ["a"], lambda: ["y"]) == ["y"]
    one.clear()
    assert BatchCache(tmp_path, ["another"]).answer("generate", ["a"], lambda: ["z"]) == ["y"]
