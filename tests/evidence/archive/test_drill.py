"""The drill: restored, verified, loaded, and compared with what was answered before."""

from __future__ import annotations

import json
import shutil
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
    other = drill(archived, prompt="another question")
    assert (other.stated()["outcome"], other.reproduced) == ("pass", None)
    assert drill(archived).reproduced == "recorded"  # it stands beside the other


def test_an_answer_that_is_not_the_recorded_one_fails(archived: tuple[str, str]) -> None:
    drill(archived)
    change_answer(archived[1])
    found = drill(archived)
    assert found.stated()["outcome"] == "fail" and found.loaded and not found.answered
    assert "answers otherwise than the answer recorded on 20" in found.problems[0]


def test_a_runtime_that_answers_otherwise_now_is_told_from_files_that_do(
    archived: tuple[str, str], skills: Path
) -> None:
    drill(archived)
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
    drill(archived)
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
