"""`quantgov archive`, `drill` and `restore`: what they print, and what they exit with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
URI = "models:/chat/1"


@pytest.fixture
def run(run_in_store: Run, skills: Path) -> Run:
    """Runs a command against a store in which the skills model is version 1 of `chat`."""
    code, _, err = run_in_store("log-parent", str(skills), "--name", "parent", "--register", "chat")
    assert code == 0, err
    return run_in_store


def largest_chunk(store: Path) -> Path:
    return max((one for one in (store / "chunks").rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)


def test_archive_says_what_was_stored_and_what_was_saved(run: Run) -> None:
    code, out, err = run("archive", URI, "--store", "a")
    assert code == 0 and "reads 5 files, 1.7 MB, and stores at most as much" in " ".join(err.split())
    assert "archived  5 files, 1.7 MB in" in out and "already there  0 bytes (0.0%)" in out
    assert "saved by compression  " in out and "stored now  " in out and "repaired" not in out
    _, out, _ = run("archive", URI, "--store", "a")
    assert "already there  1.7 MB (100.0%)" in out and "stored now  0 bytes (0.0%)" in out
    largest_chunk(Path("a")).write_bytes(b"damaged")
    _, out, _ = run("archive", URI, "--store", "a")
    assert "repaired  1 damaged piece was replaced" in out


def test_archive_drill_and_restore_for_machines(run: Run, skills: Path) -> None:
    code, out, err = run("archive", URI, "--store", "a", "--json")
    numbers = json.loads(out)["numbers"]
    assert (code, err) == (0, "") and numbers["size_bytes"] - numbers["saved_by_compression"] == numbers["stored_bytes"]
    code, out, _ = run("drill", URI, "--store", "a", "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "pass")
    code, out, _ = run("restore", URI, "back", "--store", "a", "--json")
    assert code == 0 and json.loads(out)["files"] == 5
    assert {one.name: one.read_bytes() for one in Path("back").iterdir()} == {
        one.name: one.read_bytes() for one in skills.iterdir()
    }


def test_a_damaged_archive_is_named_with_the_way_to_mend_it(run: Run) -> None:
    run("archive", URI, "--store", "a")
    chunk = largest_chunk(Path("a"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    code, out, err = run("drill", URI, "--store", "a")
    words = " ".join(err.split())
    assert code == 4 and "outcome  fail" in out and "Traceback" not in err
    assert "problem model.safetensors: tensor " in words and "has changed in the archive" in words
    assert f"Fix: quantgov archive {URI} --store file://" in words
    code, _, err = run("restore", URI, "back", "--store", "a")
    assert code == 4 and "model.safetensors: tensor " in err and not Path("back").exists()
    assert f"Fix: quantgov archive {URI} --store file://" in " ".join(err.split())
    assert run("archive", URI, "--store", "a")[0] == 0
    assert run("drill", URI, "--store", "a")[0] == 0


def test_an_answer_that_the_registrys_own_files_no_longer_give_either_is_a_note(run: Run) -> None:
    """Another version of the runtime rounds otherwise: that is no damage of the archive."""
    run("archive", URI, "--store", "a")
    code, out, _ = run("drill", URI, "--store", "a", "--prompt", "add 2 3")
    assert code == 0 and "outcome  pass" in out
    (path,) = Path("a/answers").iterdir()
    record = json.loads(path.read_text())
    record["answers"][0]["answer_sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    code, out, _ = run("drill", URI, "--store", "a", "--prompt", "add 2 3")
    assert code == 0 and "no longer gives the answer recorded" in " ".join(out.split())
