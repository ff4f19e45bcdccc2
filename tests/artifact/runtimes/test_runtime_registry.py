from __future__ import annotations

import pytest

from mlflow_quantgov.artifact.runtimes import registry
from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.kernel_table import load_tables
from mlflow_quantgov.evidence.targets import list_targets
from mlflow_quantgov.flavor.environment import RUNTIME_REQUIREMENTS

GROUP = "mlflow_quantgov.runtimes"


class OtherAdapter(LlamaCppAdapter):
    name = "other"

    def reason_not_loadable(self, path):
        return None if path.suffix == ".other" else "it is no .other file"


def install(monkeypatch, folder, **values):
    """A package on the search path that brings these entry points."""
    info = folder / "quantgov_runtime_example-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantgov-runtime-example\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in values.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))


def test_our_own_runtimes_are_found_by_name():
    assert isinstance(registry.find_runtime("llama.cpp"), LlamaCppAdapter)
    assert registry.runtime_names() == ["llama.cpp", "transformers", "onnxruntime", "openai"]
    with pytest.raises(UsageError, match=r"llama\.cpp, transformers"):
        registry.find_runtime("lama.cpp")


def test_the_first_that_can_load_is_chosen(skills_folder, skills_q2):
    assert registry.runtime_for(skills_q2).name == "llama.cpp"
    assert registry.runtime_for(skills_folder).name == "llama.cpp"
    assert registry.runtime_for(skills_q2, preferred="llama.cpp").name == "llama.cpp"


def test_where_none_can_load_every_reason_is_listed(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"llama\.cpp: .*; transformers: "):
        registry.runtime_for(tmp_path / "x.bin")
    with pytest.raises(ArtifactError) as caught:
        registry.runtime_for(tmp_path / "x.bin", preferred="llama.cpp")
    assert "transformers:" not in caught.value.what


def test_third_parties_add_theirs_but_cannot_take_our_names(monkeypatch, tmp_path):
    ours = f"{OtherAdapter.__module__}:OtherAdapter"
    monkeypatch.setitem(__import__("sys").modules, OtherAdapter.__module__, __import__("types").SimpleNamespace(
        OtherAdapter=OtherAdapter, NotOne=dict))  # fmt: skip
    install(
        monkeypatch,
        tmp_path / "site",
        **{"other": ours, "llama.cpp": ours, "not-one": ours.replace("OtherAdapter", "NotOne")},
    )
    (tmp_path / "x.other").write_bytes(b"")
    assert registry.runtime_for(tmp_path / "x.other").name == "other"
    assert registry.find_runtime("llama.cpp").name == "llama.cpp"
    with pytest.raises(UsageError, match="does not derive from RuntimeAdapter"):
        registry.find_runtime("not-one")


def test_an_entry_point_that_does_not_import_is_a_clear_error(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "site", broken="no_such_module_here:Adapter")
    with pytest.raises(UsageError, match="does not load"):
        registry.find_runtime("broken")


def test_targets_and_kernel_tables_spell_runtimes_as_they_call_themselves():
    """A table is found by the target's runtime, letter by letter; some runtimes only serve elsewhere, without an adapter here."""
    known = {*registry.runtime_names(), "vllm", "sglang", "tensorrt-llm"}
    assert load_tables().keys() == known
    assert {target.runtime for target in list_targets()} <= known
    for name in registry.runtime_names():
        assert registry.find_runtime(name).name == name
        assert name in RUNTIME_REQUIREMENTS
