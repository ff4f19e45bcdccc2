"""The drill: restored, verified, loaded, and compared with what was answered before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure import drill as module
from mlflow_quantgov.evidence.measure.archive import archive
from mlflow_quantgov.evidence.predicates import Drill

PROMPT = "add 2 3"


@pytest.fixture
def archived(skills: Path, tmp_path: Path) -> tuple[str, str]:
    """The skills model in an archive: its digest, and the archive."""
    manifest = build_manifest(skills)
    archive(skills, manifest, str(tmp_path / "a"))
    return manifest.digest, str(tmp_path / "a")


def drill(archived: tuple[str, str], **options: Any) -> Drill:
    found = module.drill(*archived, **({"prompt": PROMPT, "runtime": "llama.cpp"} | options))
    found.verify_summary()
    return found


def change_answer(store: str) -> None:
    (path,) = (Path(store) / "answers").iterdir()
    record = json.loads(path.read_text())
    record["answers"][0] |= {"answer_sha256": "0" * 64, "version": "an earlier one"}
    path.write_text(json.dumps(record))


def test_the_first_drill_compares_with_the_original_and_records_later_ones_compare_with_that(
    archived: tuple[str, str], skills: Path
) -> None:
    first = drill(archived, original=skills)
    assert (first.stated()["outcome"], first.reproduced, first.verified_files) == ("pass", "original", 5)
    again = drill(archived)
    assert (again.stated()["outcome"], again.reproduced) == ("pass", "recorded")
    assert again.answer_sha256 == first.answer_sha256 and again.prompt_sha256 == first.prompt_sha256
    other = drill(archived, prompt="another question", original=skills)
    assert (other.stated()["outcome"], other.reproduced) == ("pass", "original")
    assert drill(archived).reproduced == "recorded"  # it stands beside the other


def test_an_answer_that_is_not_the_recorded_one_fails(archived: tuple[str, str], skills: Path) -> None:
    drill(archived, original=skills)
    change_answer(archived[1])
    found = drill(archived)
    assert found.stated()["outcome"] == "fail" and found.loaded and not found.answered
    assert "answers otherwise than the answer recorded on 20" in found.problems[0]


def test_a_runtime_that_answers_otherwise_now_is_told_from_files_that_do(
    archived: tuple[str, str], skills: Path
) -> None:
    drill(archived, original=skills)
    change_answer(archived[1])
    found = drill(archived, original=skills)
    assert (found.stated()["outcome"], found.reproduced) == ("pass", "original")
    assert "no longer gives the answer recorded" in found.warnings[0]
    assert drill(archived).reproduced == "recorded"


def test_files_that_answer_otherwise_than_the_registrys_fail(
    archived: tuple[str, str], skills: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(skills, tmp_path / "other"))
    path = other / "model.safetensors"
    data = bytearray(path.read_bytes())
    tensor = max(open_safetensors(path).tensors.values(), key=lambda one: one.size)
    data[tensor.offset : tensor.offset + tensor.size] = bytes(tensor.size)
    path.write_bytes(data)
    found = drill(archived, original=other)
    assert found.stated()["outcome"] == "fail"
    assert "otherwise than the registry's own files" in found.problems[0]
    assert not (Path(archived[1]) / "answers").exists()


def test_damage_is_a_finding_that_names_the_file(archived: tuple[str, str]) -> None:
    chunk = max(
        (one for one in (Path(archived[1]) / "chunks").rglob("*") if one.is_file()), key=lambda one: one.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:-1])
    found = drill(archived)
    assert (found.stated(), found.loaded) == ({"outcome": "fail", "verified_files": 0}, False)
    assert found.problems[0].startswith("model.safetensors: tensor ")


def test_a_changed_manifest_is_a_finding(archived: tuple[str, str]) -> None:
    (path,) = (Path(archived[1]) / "manifests").iterdir()
    path.write_text("{}")
    assert "has been changed" in drill(archived).problems[0]


def test_a_record_of_answers_that_cannot_be_read_is_written_anew(archived: tuple[str, str], skills: Path) -> None:
    drill(archived, original=skills)
    (path,) = (Path(archived[1]) / "answers").iterdir()
    path.write_text('{"schema": "quantgov/archived-answers/v1", "answers": [{"prompt": 1}]}')
    assert drill(archived, original=skills).reproduced == "original"
    assert drill(archived).reproduced == "recorded"


def test_no_room_to_restore_says_nothing_about_the_archive(
    archived: tuple[str, str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(ArtifactError, match="do not fit into"):
        drill(archived)


def test_what_is_not_archived_is_not_tried(archived: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="does not hold"):
        drill(("sha256:" + "0" * 64, archived[1]))


def test_a_drill_without_anything_to_compare_with_does_not_pass(archived: tuple[str, str]) -> None:
    found = drill(archived)
    assert found.stated()["outcome"] == "fail" and found.loaded and found.verified_files == 5
    assert "nothing to compare its answer with" in found.problems[0]
    assert not (Path(archived[1]) / "answers").exists()


def test_a_statement_that_claims_an_answer_but_no_comparison_does_not_pass(
    archived: tuple[str, str], skills: Path
) -> None:
    good = drill(archived, original=skills)
    claimed = Drill.model_validate(good.model_dump() | {"reproduced": None})
    assert claimed.recompute()["outcome"] == "fail"
    earlier = claimed.model_copy(update={"prompt_sha256": None})  # of the time before answers were compared
    assert earlier.recompute()["outcome"] == "pass"


def test_registry_files_that_do_not_load_are_no_fault_of_the_archive(
    archived: tuple[str, str], skills: Path, tmp_path: Path
) -> None:
    drill(archived, original=skills)
    broken = Path(shutil.copytree(skills, tmp_path / "broken"))
    (broken / "tokenizer.json").write_text("{}")
    assert drill(archived, original=broken).reproduced == "recorded"
    found = drill(archived, original=broken, prompt="another question")
    assert found.loaded and found.answer_sha256 and "the registry's own files do not load" in found.problems[0]


def test_an_archive_that_may_only_be_read_passes_with_a_note(archived: tuple[str, str], skills: Path) -> None:
    (Path(archived[1]) / "answers").touch()  # nothing can be written below a file, whoever tries
    found = drill(archived, original=skills)
    assert (found.stated()["outcome"], found.reproduced) == ("pass", "original")
    assert "The answer was not recorded" in found.warnings[0]


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """A model that nothing here loads."""
    folder = tmp_path / "unknown"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights of some kind")
    archive(folder, build_manifest(folder), str(tmp_path / "a"))
    return folder


def test_a_model_that_no_runtime_here_loads_is_not_restored(unknown: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ArtifactError, match="No runtime here can load"):
        module.drill(
            build_manifest(unknown).digest,
            str(tmp_path / "a"),
            prompt=PROMPT,
            original=unknown,
            progress=lambda words, done: said.append(words),
        )
    assert not said


def test_files_that_come_back_but_do_not_load_are_a_finding(unknown: Path, tmp_path: Path) -> None:
    found = module.drill(build_manifest(unknown).digest, str(tmp_path / "a"), prompt=PROMPT)
    assert (found.stated(), found.loaded) == ({"outcome": "fail", "verified_files": 1}, False)
    assert found.problems[0].startswith("the restored model does not load: No runtime here can load")


@pytest.mark.parametrize("runtime", ["vllm", "openai"])
def test_a_target_whose_runtime_loads_no_files_here_is_drilled_in_another(
    archived: tuple[str, str], skills: Path, runtime: str
) -> None:
    found = drill(archived, original=skills, runtime=runtime)
    assert (found.stated()["outcome"], found.runtime) == ("pass", "llama.cpp")
    assert f"loaded in llama.cpp, not in the target's {runtime}" in found.warnings[0]


def test_no_room_to_load_says_nothing_about_the_archive(
    archived: tuple[str, str], skills: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files fit, their converted twin does not."""
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(ArtifactError, match="The drill cannot write into") as caught:
        drill(archived, original=skills)
    assert "TMPDIR" in caught.value.fix and not list(small_disk.iterdir())


KILLED = """
import os, signal, sys
from mlflow_quantgov.evidence.measure.drill import drill
def report(words, done):
    if done == 1.0:
        os.kill(os.getpid(), signal.SIGTERM)
drill(sys.argv[1], sys.argv[2], prompt="x", progress=report)
"""


def test_what_a_killed_drill_restored_is_removed_by_the_next(
    archived: tuple[str, str], skills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, *archived], env=os.environ | {"TMPDIR": str(room)})
    assert ended.returncode == -signal.SIGTERM
    assert any(room.rglob("model.safetensors"))
    monkeypatch.setattr("tempfile.tempdir", str(room))
    assert drill(archived, original=skills).stated()["outcome"] == "pass"
    assert not list(room.iterdir())
