from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter, binding, libraries, quantize
from mlflow_quantgov.artifact.runtimes.llama_cpp.libraries import CONTEXT, MODEL, VARIABLE, Library
from mlflow_quantgov.errors import ArtifactError, MissingExtraError, UsageError


@pytest.fixture
def other_library() -> Iterator[None]:
    """What is loaded while the test runs is not what other tests find."""
    binding.library.cache_clear()
    yield
    binding.library.cache_clear()


def only(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in modules else None)


def test_xllamacpp_comes_first_and_the_other_serves_where_it_is_alone(monkeypatch):
    only(monkeypatch, "xllamacpp", "llama_cpp")
    assert libraries.chosen() == "xllamacpp"
    only(monkeypatch, "llama_cpp")
    assert libraries.chosen() == "llama-cpp-python"
    assert libraries.reason_missing() is None
    only(monkeypatch)
    assert "mlflow-quantgov[gguf]" in libraries.reason_missing()
    with pytest.raises(MissingExtraError, match="xllamacpp"):
        libraries.find_library()


def test_the_variable_chooses_and_nothing_else_is_taken_instead(monkeypatch):
    monkeypatch.setenv(VARIABLE, "llama-cpp-python")
    only(monkeypatch, "xllamacpp")
    assert libraries.reason_missing() == "llama-cpp-python is not installed (pip install llama-cpp-python)"
    with pytest.raises(MissingExtraError, match="llama_cpp"):
        libraries.find_library()
    monkeypatch.setenv(VARIABLE, "ollama")
    with pytest.raises(UsageError, match=r"QUANTGOV_LLAMA_LIBRARY is 'ollama'.*xllamacpp or llama-cpp-python"):
        LlamaCppAdapter().open(Path("x.gguf"))


def test_the_environment_of_a_model_installs_the_package_that_ran_it(monkeypatch):
    from mlflow_quantgov.flavor.environment import default_requirements

    for name, other in (("llama-cpp-python", "xllamacpp"), ("xllamacpp", "llama-cpp-python")):
        monkeypatch.setenv(VARIABLE, name)
        names = {line.split("==")[0] for line in default_requirements("llama.cpp")}
        assert name in names and other not in names
    assert not {"xllamacpp", "llama-cpp-python"} & {line.split("==")[0] for line in default_requirements("onnxruntime")}


def declared(**structs: dict[str, int]) -> Library:
    return Library("llama-cpp-python", "9.9", Path("libllama.so"), structs, "pip install another")


def test_fields_lie_where_the_package_declares_them():
    known = {name: field.offset for name, field in binding.CONTEXT_FIELDS.items()}
    model = {name: field.offset for name, field in binding.MODEL_FIELDS.items()}
    fields = binding.fields_of(declared(**{CONTEXT: known | {"embeddings": 128}, MODEL: model}))
    assert fields[CONTEXT]["embeddings"].offset == 128
    assert fields[CONTEXT]["n_threads"] == binding.CONTEXT_FIELDS["n_threads"]
    del known["kv_unified"]
    with pytest.raises(ArtifactError, match=r"llama-cpp-python 9\.9 .*llama_context_params has no field kv_unified"):
        binding.fields_of(declared(**{CONTEXT: known, MODEL: model}))


def test_offsets_are_those_of_a_ctypes_structure():
    class Struct(ctypes.Structure):
        _fields_ = [("one", ctypes.c_bool), ("two", ctypes.c_uint64)]

    assert libraries._offsets(Struct) == {"one": 0, "two": 8}
    assert libraries._offsets(None) == {}


def test_declarations_of_another_build_are_refused(monkeypatch, other_library):
    """A package whose definitions do not belong to its library would write the wrong memory."""
    real = libraries.find_library()
    known = {name: field.offset for name, field in binding.CONTEXT_FIELDS.items()}
    model = {name: field.offset for name, field in binding.MODEL_FIELDS.items()}
    moved = {name: offset + 4 * (offset > 16) for name, offset in known.items()}
    found = replace(real, offsets={CONTEXT: moved, MODEL: model})
    monkeypatch.setattr(binding, "find_library", lambda: found)
    with pytest.raises(ArtifactError, match="another binary layout"):
        binding.library()


def test_a_library_that_is_no_file_is_refused(monkeypatch, other_library):
    monkeypatch.setattr(binding, "find_library", lambda: declared())
    with pytest.raises(ArtifactError, match="cannot be called on this platform"):
        binding.library()


@pytest.fixture
def llama_cpp_python(monkeypatch, other_library) -> Iterator[binding.Llama]:
    """The library of llama-cpp-python, in place of the other."""
    monkeypatch.setenv(VARIABLE, "llama-cpp-python")
    yield binding.library()


@pytest.mark.slow
@pytest.mark.needs("llama_cpp")
def test_llama_cpp_python_loads_scores_and_generates(llama_cpp_python, skills_q2):
    with LlamaCppAdapter().open(skills_q2, threads=2) as runtime:
        facts = runtime.facts()
        tokens = runtime.tokenize("12 + 30 =")
        logits, scores = runtime.logits(tokens), runtime.score([("12 + 30", " = 42"), ("a", "b")])
        answers = runtime.generate(["12 + 30 =", "7 + 1 ="], max_tokens=4)
    assert facts.library == f"llama-cpp-python {llama_cpp_python.version}"
    assert facts.version == llama_cpp_python.version
    assert facts.kernel is not None and facts.resident_bytes
    binding.library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "xllamacpp")
        with LlamaCppAdapter().open(skills_q2, threads=2) as runtime:
            assert runtime.facts().library.startswith("xllamacpp ")
            np.testing.assert_allclose(runtime.logits(tokens), logits, atol=0.05)
            theirs = runtime.score([("12 + 30", " = 42"), ("a", "b")])
            assert runtime.generate(["12 + 30 =", "7 + 1 ="], max_tokens=4) == answers
    assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in scores], abs=0.02)


@pytest.mark.needs("llama_cpp")
def test_llama_cpp_python_has_the_layout_that_it_declares_and_quantizes(llama_cpp_python):
    for default, struct in (("llama_model_default_params", MODEL), ("llama_context_default_params", CONTEXT)):
        params = bytes(getattr(llama_cpp_python.c, default)().data)
        assert binding.layout_problem(params, llama_cpp_python.fields[struct]) is None
        shifted = params[:16] + b"\x07\x00\x00\x00" + params[16:]
        assert binding.layout_problem(shifted[: len(params)], llama_cpp_python.fields[struct]) is not None
    assert quantize.quantized(np.ones((2, 256), np.float32), "Q4_K").shape == (2, 144)
