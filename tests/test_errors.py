"""Errors name the remedy that helps, and do not echo whatever was given in full."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.errors import QuantgovError, no_such_file, short


def test_a_word_that_no_line_holds_is_cut() -> None:
    error = QuantgovError(f"{'x' * 9000} does not exist.", why="y" * 9000, fix="ls")
    assert len(error.one_line()) < 400 and "(9,000 characters)" in error.what and "does not exist." in error.what
    assert short("a" * 98) == repr("a" * 98) and len(short("a" * 1000)) < 130


def test_a_missing_file_is_looked_for_where_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "calib.jsonl").write_text("{}")
    near = no_such_file(tmp_path / "calb.jsonl", "").fix
    assert f"did you mean {tmp_path / 'calib.jsonl'}?" in near and near.endswith(f"ls -l {tmp_path}")
    assert no_such_file(tmp_path / "not" / "there" / "x", "").fix.endswith(f"ls -l {tmp_path}")
    assert no_such_file(tmp_path, "").what.endswith("is a folder.")
