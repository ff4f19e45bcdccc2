"""Folders of what is not finished: who holds one keeps it, what nobody holds goes, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from mlflow_quantgov.evidence.measure.archive.scratch import held_folder


def test_held_folders_stay_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / "x-left").mkdir()
    (tmp_path / "x-left" / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "x-file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x-link").symlink_to(tmp_path / "elsewhere")
    with held_folder(tmp_path, "x-") as first, held_folder(tmp_path, "x-") as second:
        assert first.is_dir() and second.is_dir() and first != second
        assert not (tmp_path / "x-left").exists()
    assert {one.name for one in tmp_path.iterdir()} == {"other", "x-file", "x-link", "elsewhere"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away. Fix: run the tests as root")
def test_folders_of_other_users_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x-theirs").mkdir()
    os.chown(tmp_path / "x-theirs", 65534, 65534)
    with held_folder(tmp_path, "x-"):
        assert (tmp_path / "x-theirs").is_dir()


def test_one_that_is_tidied_away_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def make_and_lose(prefix: str, dir: Path) -> str:
        made.append(make(prefix=prefix, dir=dir))
        if len(made) == 1:
            shutil.rmtree(made[0])  # as another writer does that starts at this moment
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with held_folder(tmp_path, "x-") as own:
        assert own.is_dir() and str(own) == made[1]


def test_a_folder_may_be_renamed_to_what_it_becomes(tmp_path: Path) -> None:
    with held_folder(tmp_path, "x-") as own:
        (own / "file").touch()
        own.rename(tmp_path / "done")
    assert (tmp_path / "done" / "file").exists()
