from __future__ import annotations

import importlib.util

import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter
from mlflow_quantgov.artifact.runtimes.llama_cpp.adapter import read_settings
from mlflow_quantgov.errors import ArtifactError, UsageError


def test_gguf_files_folders_with_one_and_llama_folders_are_loadable(skills_folder, skills_q2, tmp_path):
    adapter = LlamaCppAdapter()
    (tmp_path / "model.gguf").write_bytes(skills_q2.read_bytes())
    assert adapter.reason_not_loadable(skills_q2) is None
    assert adapter.reason_not_loadable(tmp_path) is None
    assert adapter.reason_not_loadable(skills_folder) is None
    (tmp_path / "second.gguf").write_bytes(b"GGUF")
    assert "2 .gguf files" in adapter.reason_not_loadable(tmp_path)


def test_everything_else_gets_a_reason(tmp_path):
    adapter = LlamaCppAdapter()
    (tmp_path / "x.gguf").write_bytes(b"ELF!")
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert "no GGUF" in adapter.reason_not_loadable(tmp_path / "x.gguf")
    assert "no .gguf" in adapter.reason_not_loadable(tmp_path / "x.onnx")
    assert "neither" in adapter.reason_not_loadable(tmp_path / "empty")
    assert "does not exist" in adapter.reason_not_loadable(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="neither"):
        adapter.open(tmp_path / "empty")


def test_without_the_library_the_reason_names_the_extra(monkeypatch, skills_q2):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "mlflow-quantgov[gguf]" in LlamaCppAdapter().reason_not_loadable(skills_q2)


@pytest.mark.parametrize(
    "settings",
    [{"thread": 2}, {"threads": 0}, {"threads": True}, {"context": -1}, {"batch": 1.5}, {"twin_dtype": "Q8_0"}],
)
def test_unknown_and_impossible_settings_are_errors(skills_q2, settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        LlamaCppAdapter().open(skills_q2, **settings)


def test_settings_that_are_none_get_their_default():
    found = read_settings({"threads": None, "context": None, "batch": 64})
    assert found.threads >= 1
    assert found.context is None
    assert found.batch == 64
