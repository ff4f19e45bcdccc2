"""What the gate takes a model's files for, before any rule is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlflow_quantgov.gate.facts.version_files import inspect_version

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"


@pytest.mark.parametrize("name", ["onnx-sklearn", "onnx-cnn"])
def test_a_graph_without_language_is_of_another_kind(name: str) -> None:
    assert inspect_version(ARTIFACTS / name, ARTIFACTS / name) == (None, None)


@pytest.mark.parametrize("name", ["onnx-genai-int4", "onnx-f16", "openvino-nf4", "onnx-cnn-int8"])
def test_language_models_and_whatever_is_quantized_are_judged(name: str) -> None:
    found, problem = inspect_version(ARTIFACTS / name, ARTIFACTS / name)
    assert found is not None and problem is None


def test_weights_under_another_name_beside_a_graph_are_not_overlooked(tmp_path: Path) -> None:
    shutil.copy(ARTIFACTS / "onnx-sklearn" / "model.onnx", tmp_path)
    shutil.copy(ARTIFACTS / "tiny-Q4_0.gguf", tmp_path / "labels.txt")
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem is not None and "labels.txt" in problem


@pytest.mark.parametrize("source", ["onnx-sklearn/model.onnx", "openvino-nf4/openvino_model.xml"])
def test_a_graph_that_cannot_be_read_is_unknown(tmp_path: Path, source: str) -> None:
    data = (ARTIFACTS / source).read_bytes()
    (tmp_path / Path(source).name).write_bytes(data[: len(data) // 2])
    (tmp_path / "openvino_model.bin").write_bytes(b"")
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem


def test_a_graph_that_is_read_in_an_unknown_way_is_unknown(tmp_path: Path) -> None:
    data = (ARTIFACTS / "onnx-int8-qoperator" / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data.replace(b"QLinearMatMul", b"QLinearMatMux"))
    found, problem = inspect_version(tmp_path, tmp_path)
    assert found is None and problem is not None and "QLinearMatMux" in problem


ENCODER = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
FLAVOR = {
    "components": ["tokenizer"], "instance_type": "TextClassificationPipeline", "model_binary": "model",
    "pipeline_model_type": "BertForSequenceClassification", "source_model_name": "/home/me/bert", "task": "text-classification",
    "tokenizer_type": "BertTokenizer", "torch_dtype": "torch.float32", "transformers_version": "5.0.0", "code": None,
}  # fmt: skip


def classifier(root: Path, **changed: Any) -> Path:
    """A classifier as MLflow's transformers flavor writes one; `changed` of what MLmodel says (None: left out)."""
    (root / "model").mkdir(parents=True)
    (root / "components" / "tokenizer").mkdir(parents=True)
    (root / "components" / "tokenizer" / "tokenizer.json").write_text("{}")
    (root / "model" / "config.json").write_text(json.dumps(ENCODER))
    weights = {"classifier.weight": np.zeros((2, 8), np.float32)}
    save_file(weights, root / "model" / "model.safetensors", {"format": "pt"})
    flavor = {key: value for key, value in (FLAVOR | changed).items() if value is not None}
    function = {"loader_module": "mlflow.transformers", "env": {"conda": "conda.yaml"}}
    (root / "MLmodel").write_text(json.dumps({"flavors": {"transformers": flavor, "python_function": function}}))
    return root


def test_a_classifier_of_transformers_is_of_another_kind(tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    (root / "model" / "training_args.bin").write_bytes(b"what the trainer was told")
    assert inspect_version(root, root / "model") == (None, None)


def loaded_by(root: Path, loader: str, **described: Any) -> Path:
    """The classifier's files, with an MLmodel that names another loader."""
    function = {"loader_module": loader, **described}
    (root / "MLmodel").write_text(json.dumps({"flavors": {"python_function": function}}))
    return root


@pytest.mark.parametrize(
    ("loader", "described", "words"),
    [
        ("loader", {"code": "code"}, "code of its own"),
        ("mlflow.transformers", {"code": "code"}, "code of its own"),
        ("mlflow.pyfunc.model", {"python_model": "python_model.pkl"}, "nobody knows what that makes of them"),
    ],
)
def test_weights_that_look_like_an_encoders_are_given_to_nothing_else(
    tmp_path: Path, loader: str, described: dict[str, str], words: str
) -> None:
    root = loaded_by(classifier(tmp_path / "v"), loader, **described)
    found, problem = inspect_version(root, root / "model")
    assert found is None and problem is not None and words in problem


def test_sentence_transformers_are_of_another_kind(tmp_path: Path) -> None:
    """As MLflow's flavor lays them out: it notes what they were made from, and loads its own folder."""
    from mlflow_quantgov.gate.facts.version_files import read_version

    root = classifier(tmp_path / "v")
    shutil.rmtree(root / "components")
    (root / "model").rename(root / "model.sentence_transformer")
    config = {"architectures": ["BertModel"], "model_type": "bert"}
    (root / "model.sentence_transformer" / "config.json").write_text(json.dumps(config))
    noted = {
        "source_model_name": "sentence-transformers/all-MiniLM-L6-v2",
        "pipeline_model_type": "BertModel",
        "code": None,
    }
    function = {"loader_module": "mlflow.sentence_transformers", "data": "model.sentence_transformer"}
    (root / "MLmodel").write_text(
        json.dumps({"flavors": {"sentence_transformers": noted, "python_function": function}})
    )
    read = read_version(root)
    assert (read.role, read.problems) == ("other", ())


def test_no_version_holds_more_mlmodels_than_anybody_reads(tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    for number in range(30):
        (root / f"{number}").mkdir()
        shutil.copy(root / "MLmodel", root / f"{number}")
    _, problem = inspect_version(root, root / "model")
    assert problem is not None and "files called MLmodel" in problem


def test_a_decoy_that_is_inspected_hides_no_weights(tmp_path: Path) -> None:
    """A small classifier lies where inspection looks, and a language model below it, where MLmodel leads."""
    root = classifier(tmp_path / "v", model_binary="model/llm")
    shutil.copytree(ARTIFACTS / "parent-bf16", root / "model" / "llm")
    found, problem = inspect_version(root, root / "model")
    assert found is None and problem is not None and "model/llm/model.safetensors holds weights" in problem


@pytest.mark.parametrize("name", ["pytorch_model.bin", "llm.gguf", "deep/er/W.SAFETENSORS", "tf_model.h5"])
def test_weights_in_the_inspected_folder_that_were_not_read_count(name: str, tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    (root / "model" / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "model" / name).write_bytes(b"weights")
    found, problem = inspect_version(root, root / "model")
    assert found is None and problem is not None and name in problem


def test_what_lies_beside_an_inspected_model_is_small(tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    with (root / "model" / "vocab.dat").open("wb") as file:
        file.truncate(60_000_000)
    _, problem = inspect_version(root, root / "model")
    assert problem is not None and "bytes that nobody can read" in problem


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_binary": "/srv/llm"}, "does not lie in the version"),
        ({"model_binary": "../../llm"}, "does not lie in the version"),
        ({"model_binary": "components/llm"}, "not what was inspected"),
        ({"model_binary": ""}, "not what was inspected"),
        ({"model_binary": ["model"]}, "not what was inspected"),
        ({"model_binary": None, "source_model_name": None}, "not what was inspected"),
        ({"source_model_revision": "abc"}, "load by source_model_revision"),
        ({"local_base_model_path": "llm"}, "load by local_base_model_path"),
        ({"components": ["../../tokenizer"]}, "does not lie in the version"),
        ({"tokenizer": {"deep": ["/srv/tokenizer"]}}, "does not lie in the version"),
        ({"task": "text-generation"}, "'text-generation'"),
        ({"task": "text2text-generation"}, "'text2text-generation'"),
        ({"task": ["text-classification"]}, "cannot be read"),
        ({"inference_task": "llm/v1/chat"}, "'llm/v1/chat'"),
        ({"instance_type": "TextGenerationPipeline"}, "may generate text"),
        ({"pipeline_model_type": "BertLMHeadModel"}, "'BertLMHeadModel'"),
        ({"pipeline_model_type": "AutoModelForCausalLM"}, "'AutoModelForCausalLM'"),
        ({"pipeline_model_type": None}, "'None'"),
    ],
)
def test_whichever_says_that_it_generates_wins(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    root = classifier(tmp_path / "v", **changed)
    found, problem = inspect_version(root, root / "model")
    assert found is None and problem is not None and words in problem


def test_a_base_that_an_adapter_config_names_is_not_overlooked(tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    (root / "model" / "adapter_config.json").write_text('{"base_model_name_or_path": "/srv/llm"}')
    assert "adapter_config.json" in str(inspect_version(root, root / "model")[1])


def without_architectures(root: Path) -> None:
    path = root / "model" / "config.json"
    path.write_text(json.dumps({"model_type": "bert"}))


def bloom(root: Path) -> None:
    (root / "model" / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    weights = {"transformer.word_embeddings.weight": np.zeros((8, 8), np.float32)}
    save_file(weights, root / "model" / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("change", [without_architectures, bloom])
def test_what_is_not_known_as_harmless_is_judged(change: Callable[[Path], None], tmp_path: Path) -> None:
    root = classifier(tmp_path / "v")
    change(root)
    found, problem = inspect_version(root, root / "model")
    assert found is not None and found.is_language_model and problem is None


@pytest.mark.slow
def test_what_mlflow_itself_writes_is_told_apart(tmp_path: Path, skills: Path) -> None:
    """Real classes of transformers, saved by MLflow: heads of encoders pass, decoders under any tensor names do not."""
    import mlflow

    transformers = pytest.importorskip("transformers")
    words = transformers.AutoTokenizer.from_pretrained(skills)
    size = {"vocab_size": len(words), "hidden_size": 16}
    encoder = size | {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = transformers.BertConfig(**encoder)
    falcon = transformers.FalconConfig(**size, num_hidden_layers=1, num_attention_heads=2)
    neox = transformers.GPTNeoXConfig(**encoder, tie_word_embeddings=True)
    kinds = [
        (transformers.BertForSequenceClassification(bert), "text-classification", False),
        (transformers.BertModel(bert), "feature-extraction", False),
        (transformers.BloomForCausalLM(transformers.BloomConfig(**size, n_layer=1, n_head=2)), "text-generation", True),
        (transformers.FalconForCausalLM(falcon), "text-generation", True),
        (transformers.GPTNeoXForCausalLM(neox), "text-generation", True),
    ]
    for number, (model, task, generates) in enumerate(kinds):
        root = tmp_path / str(number)
        pipeline = transformers.pipeline(task, model=model, tokenizer=words)
        mlflow.transformers.save_model(pipeline, str(root), pip_requirements=["mlflow"])
        found, problem = inspect_version(root, root / "model")
        assert (found is not None, problem) == (generates, None), task
        if generates:
            config = json.loads((root / "model" / "config.json").read_text()) | ENCODER
            (root / "model" / "config.json").write_text(json.dumps(config))
            assert inspect_version(root, root / "model") != (None, None)
