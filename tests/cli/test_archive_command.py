"""`quantgov archive`, `drill` and `restore`: what they print, and what they exit with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.tensors import open_safetensors, write_safetensors

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


def test_sound_files_of_a_model_that_answers_nothing_exit_with_1_and_a_remedy_that_helps(
    run: Run, skills: Path, tmp_path: Path
) -> None:
    """Archiving again would change nothing: every byte came back. The end of text is what this model always says."""
    mute = Path(shutil.copytree(skills, tmp_path / "mute"))
    path = mute / "model.safetensors"
    tensors = {name: np.zeros(one.shape, np.uint16) for name, one in open_safetensors(path).tensors.items()}
    tensors["model.norm.weight"][:] = tensors["model.embed_tokens.weight"][:] = 0x3F80  # 1 in bfloat16
    tensors["model.embed_tokens.weight"][256] = 0x4000  # 2
    write_safetensors(path, tensors, bf16=frozenset(tensors))
    assert run("log-parent", str(mute), "--name", "mute", "--register", "mute")[0] == 0
    run("archive", "models:/mute/1", "--store", "a")
    code, out, err = run("drill", "models:/mute/1", "--store", "a")
    words = " ".join(err.split())
    assert code == 1 and "outcome  fail" in out and "verified_files  5" in out and "Traceback" not in err
    assert "problem the restored model answers nothing" in words
    assert "Fix: quantgov doctor; quantgov drill models:/mute/1 --store file://" in words and "--prompt" in words


def test_a_parent_for_vllm_is_drilled_where_vllm_is_not(run: Run, skills: Path) -> None:
    target = ("--target", "gpu-vllm-hopper")
    assert run("log-parent", str(skills), "--name", "parent", "--register", "gpu", *target)[0] == 0
    run("archive", "models:/gpu/1", "--store", "a")
    code, out, _ = run("drill", "models:/gpu/1", "--store", "a")
    assert code == 0 and "not in the target's vllm" in " ".join(out.split())
