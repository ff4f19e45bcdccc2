from __future__ import annotations

import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import binding
from mlflow_quantgov.errors import ArtifactError


def default_params(name: str) -> bytes:
    return bytes(getattr(binding.library().c, name)().data)


def test_the_installed_build_has_the_layout_that_is_relied_on():
    assert binding.layout_problem(default_params("llama_context_default_params"), binding.CONTEXT_FIELDS) is None
    assert binding.layout_problem(default_params("llama_model_default_params"), binding.MODEL_FIELDS) is None


@pytest.mark.parametrize("at", [0, 8, 20, 100, 130])
def test_a_field_inserted_into_the_context_struct_is_noticed(at):
    params = default_params("llama_context_default_params")
    shifted = params[:at] + b"\x07\x00\x00\x00" + params[at:]
    assert binding.layout_problem(shifted[: len(params)], binding.CONTEXT_FIELDS) is not None


@pytest.mark.parametrize("at", [0, 16, 20, 40])
def test_a_field_inserted_into_the_model_struct_is_noticed(at):
    params = default_params("llama_model_default_params")
    shifted = params[:at] + b"\x07\x00\x00\x00" + params[at:]
    assert binding.layout_problem(shifted[: len(params)], binding.MODEL_FIELDS) is not None


def test_a_missing_function_is_refused_naming_the_version(monkeypatch):
    monkeypatch.setitem(binding._SIGNATURES, "llama_no_such_function", (None, []))
    binding.library.cache_clear()
    try:
        with pytest.raises(ArtifactError, match=r"xllamacpp 20\d\d.*llama_no_such_function"):
            binding.library()
    finally:
        monkeypatch.undo()
        binding.library.cache_clear()
        binding.library()


def test_values_are_written_where_the_fields_are():
    params = bytes(binding.library().context_params(n_ctx=777, n_threads=3, kv_unified=1).data)
    assert int.from_bytes(params[0:4], "little") == 777
    assert int.from_bytes(params[28:32], "little") == 3
    assert params[141] == 1
    assert params[136:141] == default_params("llama_context_default_params")[136:141]


def test_the_log_is_taken_back_from_whoever_took_it():
    """xllamacpp's server sets the log of the whole process; models loaded after it had no kernel's name."""
    llama = binding.library()
    theirs = binding.LOG_CALLBACK(lambda *_: None)
    llama.c.llama_log_set(theirs, None)
    with llama.captured_log() as lines:
        assert not llama.c.llama_model_load_from_file(b"/nowhere/model.gguf", llama.model_params())
    assert any("model.gguf" in line for line in lines)
