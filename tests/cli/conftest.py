"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
from mlflow_quantgov.cli import main


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; gives its exit code, and what it alone printed on stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def run_in_store(
    command: Callable[..., tuple[int, str, str]],
    new_sqlite_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str, str]]:
    """The same, against an empty store of its own, from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_sqlite_database())
    return command


@pytest.fixture
def run_with_parent(
    run_in_store: Callable[..., tuple[int, str, str]], skills: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """The same, with the skills model as version 1 of `skills`, on a terminal 140 columns wide."""
    monkeypatch.setenv("COLUMNS", "140")
    assert run_in_store("log-parent", str(skills), "--name", "parent", "--register", "skills")[0] == 0
    return run_in_store


@pytest.fixture
def log_quantized(
    run_with_parent: Callable[..., tuple[int, str, str]], skills: Path, tmp_path: Path
) -> Callable[[str], None]:
    """Quantizes that parent to a type of llama.cpp, and logs it as the next version."""

    def log(kind: str) -> None:
        made = quantize_gguf(gguf_twin(skills, tmp_path).path, tmp_path / f"{kind}.gguf", kind).path
        to = ["--parent", "models:/skills/1", "--target", "cpu-llamacpp", "--name", "quantized", "--register", "skills"]
        code, _, error = run_with_parent("log", str(made), *to)
        assert code == 0, error

    return log
