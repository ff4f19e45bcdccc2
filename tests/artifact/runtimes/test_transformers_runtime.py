"""transformers as a runtime: greedy, batched, honest about what lies in memory."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.artifact.runtimes.transformers_runtime import TransformersAdapter, TransformersRuntime
from mlflow_quantgov.artifact.runtimes.transformers_settings import read_settings
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure.provenance import side

PROMPTS = ["4321+8765=", "c:kettle=", "r:abcd=", "1111+2222="]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def model(skills_folder: Path) -> Iterator[TransformersRuntime]:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    with TransformersAdapter().open(skills_folder, threads=2, dtype="float32") as opened:
        assert isinstance(opened, TransformersRuntime)
        yield opened


def with_tokenizer(folder: Path, tokenizer: Path, target: Path) -> Path:
    """A copy of a quantized folder with the skills model's tokenizer beside it."""
    shutil.copytree(folder, target)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, target / name)
    return target


@pytest.mark.slow
def test_full_precision_facts(model: TransformersRuntime) -> None:
    facts = model.facts()
    assert (facts.runtime, facts.dequantized, facts.twin) == ("transformers", False, "own-files")
    assert facts.kernel == "Linear float32"
    assert set(facts.parameter_types) == {"float32"}
    assert facts.settings["threads"] == 2 and facts.settings["compute_dtype"] == "float32"
    assert facts.resident_bytes is not None and facts.resident_bytes > 500_000


@pytest.mark.slow
def test_answers_are_greedy_whatever_the_batch(model: TransformersRuntime) -> None:
    alone = [model.generate([prompt], max_tokens=8, stop=["<eos>"])[0] for prompt in PROMPTS]
    assert model.generate(PROMPTS, max_tokens=8, stop=["<eos>"], batch=3) == alone
    assert alone[1] == "kettle" and alone[2] == "dcba"
    tokens = model.tokenize(PROMPTS[0], add_special=True)
    written: list[int] = []
    for _ in range(3):
        written.append(int(model.logits(tokens + written)[-1].argmax()))
    assert alone[0].startswith(model.detokenize(written))


@pytest.mark.slow
def test_a_stop_string_ends_an_answer_and_is_left_out(model: TransformersRuntime) -> None:
    assert model.generate(["c:kettle="], max_tokens=8, stop=["tl"])[0] == "ket"


@pytest.mark.slow
def test_scores_are_those_of_the_logits(model: TransformersRuntime) -> None:
    pairs = [("c:kettle=", "kettle"), ("c:kettle=", "kittle"), ("c:ab=", "ab"), ("", "abc")]
    found = model.score(pairs)
    for (context, continuation), score in zip(pairs, found, strict=True):
        before = model.tokenize(context, add_special=True) or [model._start]
        wanted = model.tokenize(continuation)
        rows = model.logits(before + wanted[:-1])[len(before) - 1 :].astype(np.float64)
        logs = (
            rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True)) - rows.max(1, keepdims=True)
        )
        assert score.logprob == pytest.approx(logs[np.arange(len(wanted)), wanted].sum(), abs=1e-3)
        assert score.tokens == len(wanted)
        assert score.is_greedy == bool((rows.argmax(1) == wanted).all())
    assert found[0].is_greedy and not found[1].is_greedy


@pytest.mark.slow
def test_what_does_not_fit_is_refused_and_never_cut(model: TransformersRuntime) -> None:
    long = "c:" + "a" * model.context_length
    for call in (
        lambda: model.logits(model.tokenize(long)),
        lambda: model.score([(long, "b")]),
        lambda: model.generate([long], max_tokens=1),
        lambda: model.time(batch=1, prompt_tokens=model.context_length, output_tokens=1),
    ):
        with pytest.raises(UsageError, match="context holds"):
            call()
    with pytest.raises(UsageError, match="continuation"):
        model.score([("a", "")])


@pytest.mark.slow
def test_a_load_is_timed(model: TransformersRuntime) -> None:
    found = model.time(batch=2, prompt_tokens=8, output_tokens=3)
    assert found.prefill_tokens_per_second > 0 and found.decode_tokens_per_second > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "library", "kernel", "dequantized"),
    [
        ("torchao-int8wo", "torchao", "Int8Tensor int8", False),
        ("dequantized-bf16", "torch", "bfloat16", False),
        ("ct-fp8-tensor", "compressed_tensors", None, True),
    ],
)
def test_what_lies_in_memory(
    artifacts: Path,
    skills_folder: Path,
    tmp_path: Path,
    folder: str,
    library: str,
    kernel: str | None,
    dequantized: bool,
) -> None:
    pytest.importorskip(library)
    path = with_tokenizer(artifacts / folder, skills_folder, tmp_path / folder)
    with TransformersAdapter().open(path, threads=2, device="cpu") as opened:
        facts = opened.facts()
    assert facts.dequantized is dequantized, facts
    assert side(f"sha256:{'a' * 64}", facts, path).dequantized is dequantized
    if kernel is not None:
        assert facts.kernel is not None and kernel in facts.kernel
    assert facts.resident_bytes is not None and facts.resident_bytes > 0


@pytest.mark.slow
def test_bitsandbytes_stays_quantized_and_answers(skills_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    made = transformers.AutoModelForCausalLM.from_pretrained(
        skills_folder, quantization_config=config, device_map="cpu"
    )
    made.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(skills_folder).save_pretrained(tmp_path)
    with TransformersAdapter().open(tmp_path, threads=2, device="cpu") as opened:
        facts = opened.facts()
        assert opened.generate(["c:kettle="], max_tokens=8, stop=["<eos>"]) == ["kettle"]
    assert facts.kernel == "Linear4bit Params4bit uint8"
    assert not facts.dequantized and facts.parameter_types["Params4bit uint8"] == 14


@pytest.mark.slow
@pytest.mark.needs("gptqmodel")
@pytest.mark.parametrize(
    ("folder", "kernel"),
    [
        ("gptq-w4g32", "TorchAtenLinear uint8"),
        ("gptq-w4g32-desc", "TorchAtenLinear uint8"),
        ("gptq-w8-channel", "TorchLinear int32"),
        ("awq-w4g32", "TorchAtenAwqLinear uint8"),
    ],
)
def test_gptq_and_awq_run_quantized_and_quietly(
    artifacts: Path, skills_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], folder: str, kernel: str
) -> None:
    """gptqmodel is not in the development environment: pip install 'mlflow-quantgov[gptq]' runs these."""
    path = with_tokenizer(artifacts / folder, skills_folder, tmp_path / folder)
    with TransformersAdapter().open(path, threads=2, device="cpu") as opened:
        facts = opened.facts()
        rows = opened.logits([1, 2, 3])
    assert (facts.kernel, facts.dequantized) == (kernel, False)
    assert rows.shape == (3, 128) and np.isfinite(rows).all()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_a_method_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gptqmodel" else real(name))
    reason = TransformersAdapter().reason_not_loadable(tmp_path) or ""
    assert "gptqmodel" in reason and "mlflow-quantgov[gptq]" in reason


@pytest.mark.slow
def test_weights_that_are_not_there_are_refused_and_not_invented(skills_folder: Path, tmp_path: Path) -> None:
    """transformers would fill them with random numbers."""
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "model"
    shutil.copytree(skills_folder, path)
    tensors = safetensors.load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    safetensors.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"do not hold 1 weights .*up_proj"):
        TransformersAdapter().open(path, device="cpu")


@pytest.mark.slow
def test_shapes_that_do_not_fit_are_one_clear_line(artifacts: Path, skills_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    path = with_tokenizer(artifacts / "bnb-nf4-double", skills_folder, tmp_path / "model")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["num_key_value_heads"] = 7
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ArtifactError, match="does not load") as caught:
        TransformersAdapter().open(path, device="cpu")
    assert "\n" not in caught.value.one_line()


@pytest.fixture
def artifacts() -> Path:
    return Path(__file__).resolve().parents[2] / "data" / "artifacts"


def test_the_registry_finds_it() -> None:
    assert find_runtime("transformers").name == "transformers"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "safetensors"),
        ({"model.safetensors": b"", "config.json": b"{"}, "config.json"),
        ({"model.safetensors": b"", "config.json": b"[]"}, "no object"),
        ({"model.safetensors": b"", "config.json": b'{"auto_map": {}}'}, "code of its own"),
        ({"pytorch_model.bin": b"x", "config.json": b"{}"}, "pickle"),
    ],
)
def test_what_it_does_not_load_has_a_reason(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    pytest.importorskip("torch")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert reason in (TransformersAdapter().reason_not_loadable(tmp_path) or "")
    with pytest.raises(ArtifactError, match="cannot load") as caught:
        TransformersAdapter().open(tmp_path)
    assert caught.value.fix


@pytest.mark.slow
def test_files_that_break_while_loading_are_one_clear_line(skills_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "model"
    shutil.copytree(skills_folder, path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="does not load") as caught:
        TransformersAdapter().open(path)
    assert "\n" not in caught.value.one_line()


@pytest.mark.parametrize(
    "settings", [{"thread": 2}, {"threads": 0}, {"threads": True}, {"dtype": "int8"}, {"device": 1}]
)
def test_settings_that_are_not_taken_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        read_settings(settings)


def test_settings_that_are_none_keep_their_default() -> None:
    assert read_settings({"dtype": None, "threads": 3}).dtype == "auto"
    assert json.dumps(read_settings({}).threads)
