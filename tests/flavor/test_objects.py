"""Loaded model objects are written by their own library, and come with a tokenizer where there is one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

import mlflow_quantgov as qg
from mlflow_quantgov.artifact.objects import save_object
from mlflow_quantgov.errors import UsageError


@pytest.fixture
def with_tokenizer(skills: Path, tmp_path: Path) -> Path:
    """The skills model in a folder of its own."""
    return Path(shutil.copytree(skills, tmp_path / "skills"))


def load(folder: Path, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16", **settings)


@pytest.mark.slow
def test_a_transformers_object_is_logged_with_the_tokenizer_of_its_folder(
    client: mlflow.MlflowClient, with_tokenizer: Path
) -> None:
    info = qg.log_parent(load(with_tokenizer), name="p", registered_model_name="chat", target="cpu-llamacpp")
    model = qg.load_model(f"models:/chat/{info.registered_model_version}")
    assert model.predict(["4321+8765="], params={"max_tokens": 8})[0].strip()
    model.close()


@pytest.mark.slow
def test_a_quantized_object_is_what_its_bytes_say(client: mlflow.MlflowClient, with_tokenizer: Path) -> None:
    from transformers import AutoTokenizer, BitsAndBytesConfig

    qg.log_parent(with_tokenizer, name="p", registered_model_name="chat")
    model = load(with_tokenizer, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))
    tokenizer = AutoTokenizer.from_pretrained(with_tokenizer)
    info = qg.log_model(
        {"model": model, "tokenizer": tokenizer}, name="q", parent="models:/chat/1", registered_model_name="chat"
    )
    assert client.get_logged_model(info.model_id).params["format"] == "bitsandbytes"
    files = client.list_logged_model_artifacts(info.model_id, "model")
    assert "tokenizer.json" in {Path(one.path).name for one in files}


@pytest.mark.slow
def test_a_pipeline_is_its_model_and_tokenizer(with_tokenizer: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, pipeline

    made = pipeline(
        "text-generation", model=load(with_tokenizer), tokenizer=AutoTokenizer.from_pretrained(with_tokenizer)
    )
    (tmp_path / "out").mkdir()
    save_object(made, tmp_path / "out")
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= {one.name for one in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(("module", "method"), [("awq.models.base", "save_quantized"), ("auto_gptq.modeling", "save_quantized"),
                                                ("gptqmodel.models.base", "save_quantized"), ("optimum.onnxruntime", "save_pretrained")])  # fmt: skip
def test_each_library_saves_by_its_own_method(module: str, method: str, tmp_path: Path) -> None:
    """Found by the name of the class's module: none of these packages is imported."""
    written = lambda self, folder: (Path(folder) / "model.safetensors").write_bytes(b"x")  # noqa: E731
    model = type("Model", (), {"__module__": module, method: written})()
    save_object(model, tmp_path)
    assert (tmp_path / "model.safetensors").exists()


def test_a_library_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    def broken(self: object, folder: str) -> None:
        raise RuntimeError("disk full")

    model = type("Model", (), {"__module__": "transformers.x", "save_pretrained": broken})()
    with pytest.raises(UsageError, match="disk full"):
        save_object(model, tmp_path)


@pytest.mark.parametrize("thing", [object(), {"tokenizer": 1}, 7])
def test_other_objects_are_refused(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        save_object(thing, tmp_path)
    assert raised.value.fix
