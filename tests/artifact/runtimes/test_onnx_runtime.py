"""onnxruntime as a runtime: both engines answer alike, twins are proved, expansion is seen, and nothing is cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.artifact.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeAdapter, onnx_twin, prove_twin
from mlflow_quantgov.artifact.runtimes.onnxruntime.settings import read_settings
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import ArtifactError, UsageError

PROMPTS = ["4321+8765=", "c:kettle=", "r:abcd=", "1111+2222=", "c:ab=ab<eos>c:kettle="]
"""Of different lengths; the last holds the token that pads and ends texts."""


@pytest.fixture(scope="module", params=["genai", "session"])
def model(request: pytest.FixtureRequest, skills_onnx_int4: Path) -> Iterator[OnnxRuntime]:
    with OnnxRuntimeAdapter().open(skills_onnx_int4, threads=2, engine=request.param) as opened:
        assert isinstance(opened, OnnxRuntime)
        yield opened


@pytest.mark.slow
def test_facts_name_the_kernel_and_count_the_weights(model: OnnxRuntime) -> None:
    facts = model.facts()
    assert (facts.runtime, facts.dequantized, facts.twin, facts.saw_bytes) == ("onnxruntime", False, "own-files", True)
    assert facts.kernel == "MatMulNBits 4 bit, block 32, accuracy level 4 (CPUExecutionProvider)"
    assert facts.parameter_types["MatMulNBits uint8"] >= 11
    assert facts.resident_bytes is not None and 500_000 < facts.resident_bytes < 1_500_000
    assert facts.settings["threads"] == 2 and facts.settings["context"] == 256
    assert facts.library.startswith("onnxruntime")


@pytest.mark.slow
def test_answers_are_greedy_whatever_the_batch(model: OnnxRuntime) -> None:
    alone = [model.generate([prompt], max_tokens=8, stop=["<eos>"])[0] for prompt in PROMPTS]
    assert model.generate(PROMPTS, max_tokens=8, stop=["<eos>"], batch=4) == alone
    assert alone[:3] == ["21960", "kettle", "dcba"]
    tokens = model.tokenize(PROMPTS[0], add_special=True)
    written: list[int] = []
    for _ in range(3):
        written.append(int(model.logits(tokens + written)[-1].argmax()))
    assert alone[0].startswith(model.detokenize(written))


@pytest.mark.slow
def test_a_stop_string_ends_an_answer_and_is_left_out(model: OnnxRuntime) -> None:
    assert model.generate(["c:kettle=", "r:ab="], max_tokens=8, stop=["tl", ""]) [0] == "ket"  # fmt: skip


@pytest.mark.slow
def test_scores_are_those_of_the_logits(model: OnnxRuntime) -> None:
    pairs = [("c:kettle=", "kettle"), ("c:kettle=", "kittle"), ("c:ab=", "ab"), ("", "abc")]
    found = model.score(pairs)
    for (context, continuation), score in zip(pairs, found, strict=True):
        before = model.tokenize(context, add_special=True) or [256]
        wanted = model.tokenize(continuation)
        rows = model.logits(before + wanted[:-1])[len(before) - 1 :].astype(np.float64)
        logs = rows - rows.max(1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        assert score.logprob == pytest.approx(logs[np.arange(len(wanted)), wanted].sum(), abs=1e-3)
        assert (score.tokens, score.is_greedy) == (len(wanted), bool((rows.argmax(1) == wanted).all()))
    assert found[0].is_greedy and not found[1].is_greedy


@pytest.mark.slow
def test_what_does_not_fit_is_refused_and_never_cut(model: OnnxRuntime) -> None:
    long = "c:" + "a" * model.context_length
    for call in (
        lambda: model.logits(model.tokenize(long)),
        lambda: model.score([(long, "b")]),
        lambda: model.generate([long], max_tokens=1),
        lambda: model.time(batch=1, prompt_tokens=model.context_length, output_tokens=1),
    ):
        with pytest.raises(UsageError, match="context holds"):
            call()


@pytest.mark.slow
def test_a_load_is_timed(model: OnnxRuntime) -> None:
    found = model.time(batch=2, prompt_tokens=8, output_tokens=3)
    assert found.prefill_tokens_per_second > 0 and found.decode_tokens_per_second > 0


@pytest.mark.slow
def test_the_parent_runs_as_a_proved_twin_and_scores_like_transformers(
    skills_folder: Path, skills_onnx: Path, tmp_path: Path
) -> None:
    from mlflow_quantgov.artifact.runtimes.transformers_runtime import TransformersAdapter

    proof = prove_twin(skills_folder, skills_onnx)
    assert (proof.kind, proof.tensors, proof.differing) == ("lossless-twin", 20, ())
    shutil.copytree(skills_onnx, tmp_path / skills_onnx.name)  # a cache that holds it already
    pairs = [("4321+8765=", "21960"), ("c:kettle=", "kittle"), ("", "the end")]
    with OnnxRuntimeAdapter().open(skills_folder, cache=tmp_path, threads=2) as ours:
        facts, found = ours.facts(), ours.score(pairs)
    assert (facts.twin, facts.kernel) == ("lossless-twin", "MatMul float32 (CPUExecutionProvider)")
    with TransformersAdapter().open(skills_folder, threads=2, dtype="float32", device="cpu") as theirs:
        wanted = theirs.score(pairs)
    for one, other in zip(found, wanted, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert (one.tokens, one.is_greedy) == (other.tokens, other.is_greedy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tensor", ["model.layers.0.attn.qkv_proj.MatMul.weight", "lm_head.MatMul.weight", "cos_cache", None]
)
def test_a_twin_that_differs_in_one_number_is_only_converted(
    skills_folder: Path, skills_onnx: Path, tmp_path: Path, tensor: str | None
) -> None:
    import onnx
    from onnx import numpy_helper

    shutil.copytree(skills_onnx, tmp_path / "twin")
    changed = onnx.load(str(tmp_path / "twin" / "model.onnx"))
    for at, one in enumerate(changed.graph.initializer):
        if one.name == tensor:
            values = numpy_helper.to_array(one).copy()
            values.flat[3] += 0.5
            changed.graph.initializer[at].CopyFrom(numpy_helper.from_array(values, tensor))
    if tensor is None:  # a matrix from nowhere
        changed.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float32), "extra"))
    onnx.save(changed, str(tmp_path / "twin" / "model.onnx"))
    proof = prove_twin(skills_folder, tmp_path / "twin")
    assert proof.kind == "converted" and proof.differing


@pytest.mark.parametrize("past", [True, False])
def test_a_plain_export_gives_the_logits_of_its_formula(decoder, past: bool) -> None:
    made = decoder(past=past)
    with OnnxRuntimeAdapter().open(made.folder, threads=1) as model:
        tokens = model.tokenize("some words")
        np.testing.assert_allclose(model.logits(tokens), made.logits(tokens), rtol=1e-4, atol=1e-4)
        assert model.facts().kernel == "MatMul float32 (CPUExecutionProvider)"
        prompts = ["ab", "some words", "cd", "longer words than those"]
        answers = model.generate(prompts, max_tokens=5, batch=4)
        for prompt, answer in zip(prompts, answers, strict=True):
            written = model.tokenize(prompt)
            for _ in range(5):
                written.append(int(made.logits(written)[-1].argmax()))
            assert answer == model.detokenize(written[len(model.tokenize(prompt)) :])
        assert model.time(batch=2, prompt_tokens=3, output_tokens=2).decode_tokens_per_second > 0


def test_weights_that_are_expanded_before_every_product_are_called_dequantized(decoder) -> None:
    def facts(weights: str) -> RuntimeFacts:
        with OnnxRuntimeAdapter().open(decoder(past=True, weights=weights).folder, threads=1) as model:
            return model.facts()

    expanded = facts("int8-qdq-transposed")
    assert expanded.dequantized and (expanded.kernel or "").startswith("DequantizeLinear, MatMul")
    dynamic = facts("int8-dynamic")
    assert not dynamic.dequantized
    assert (dynamic.kernel or "").startswith(("DynamicQuantizeMatMul", "MatMulInteger"))
    # Newer releases join this expansion with the product behind it; what ran is asked, not what is written.
    joined = facts("int8-qdq")
    assert joined.dequantized == (joined.kernel or "").startswith("DequantizeLinear")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: shutil.copy(folder / "model.onnx", folder / "other.onnx"), "2 .onnx files"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json does not read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no object"),
        (lambda folder: (folder / "genai_config.json").write_text('{"model": {"decoder": {"filename": "../x.onnx"}}}'),
         "not there"),
    ],
)  # fmt: skip
def test_what_it_does_not_load_has_a_reason(decoder, change, reason: str) -> None:
    folder = decoder(past=False).folder
    change(folder)
    assert reason in (OnnxRuntimeAdapter().reason_not_loadable(folder) or "")
    with pytest.raises(ArtifactError, match="cannot load") as caught:
        OnnxRuntimeAdapter().open(folder)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x01garbage"), "does not load"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), "does not load"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json does not read"),
        (lambda folder: (folder / "genai_config.json").write_text('{"model": {"type": "nonsense"}}'), "does not load"),
    ],
)
def test_files_that_break_while_loading_are_one_clear_line(decoder, change, reason: str) -> None:
    folder = decoder(past=False).folder
    change(folder)
    with pytest.raises(ArtifactError, match=reason) as caught:
        OnnxRuntimeAdapter().open(folder, threads=1)
    assert "\n" not in caught.value.one_line()


@pytest.mark.parametrize(
    "config",
    [
        {"model": {"decoder": {"session_options": {"custom_ops_library": "evil.so"}}}},
        {"model": {"vision": {"session_options": {"custom_ops_library": "evil.so"}}}},
        {"model": {"decoder": {"pipeline": [{"stage": {"session_options": {"enable_profiling": "/etc/x"}}}]}}},
        {
            "model": {
                "decoder": {"session_options": {"provider_options": [{"any": {"Plugin_Library_Path": "evil.so"}}]}}
            }
        },
    ],
)
def test_a_config_that_loads_code_is_refused_before_anything_is_loaded(decoder, config: dict[str, object]) -> None:
    folder = decoder(past=True).folder
    (folder / "genai_config.json").write_text(json.dumps(config))
    assert "code or files" in (OnnxRuntimeAdapter().reason_not_loadable(folder) or "")
    for engine in ("genai", "session", "auto"):
        with pytest.raises(ArtifactError, match="code or files"):
            OnnxRuntimeAdapter().open(folder, engine=engine)


def test_a_graph_that_wants_what_nobody_gives_is_refused(decoder) -> None:
    with pytest.raises(ArtifactError, match="use_cache_branch"):
        OnnxRuntimeAdapter().open(decoder(past=True, extra_input="use_cache_branch").folder, threads=1)
    with pytest.raises(ArtifactError, match=r"genai_config\.json"):
        OnnxRuntimeAdapter().open(decoder(past=True).folder, engine="genai")


def test_a_folder_that_is_no_model_has_a_reason(tmp_path: Path, skills_folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    adapter = find_runtime("onnxruntime")
    assert "safetensors" in (adapter.reason_not_loadable(tmp_path) or "")
    assert "no .onnx file" in (adapter.reason_not_loadable(skills_folder / "config.json") or "")
    shutil.copytree(skills_folder, tmp_path / "quantized")
    config = json.loads((skills_folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "quantized" / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    assert "not ONNX" in (adapter.reason_not_loadable(tmp_path / "quantized") or "")


@pytest.mark.parametrize("settings", [{"thread": 2}, {"threads": 0}, {"threads": True}, {"engine": "cuda"}])
def test_settings_that_are_not_taken_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        read_settings(settings)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["Qwen3", "Llama"])
def test_biases_norms_of_heads_and_scaled_positions_are_proved_too(
    skills_folder: Path, tmp_path: Path, architecture: str
) -> None:
    for module in ("onnxruntime_genai", "onnx_ir", "torch"):
        pytest.importorskip(module)
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    scaled = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=258, hidden_size=128, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=architecture != "Qwen3",
        bos_token_id=256, eos_token_id=256, **({"rope_parameters": scaled, "attention_bias": True} if architecture == "Llama" else {}),
    )  # fmt: skip
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for parameter in made.parameters():  # norms and biases begin as ones and zeros, which would prove little
        torch.nn.init.normal_(parameter, std=0.05)
    made.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(skills_folder / name, tmp_path / "model" / name)
    proof = onnx_twin(tmp_path / "model", tmp_path / "cache")
    assert (proof.kind, proof.differing) == ("lossless-twin", ())


@pytest.fixture
def optimum_exports() -> tuple[Path, Path]:
    """One model in int8 as optimum-onnx's command line writes it, with and without keys and values."""
    artifacts = Path(__file__).parents[2] / "data" / "artifacts"
    return artifacts / "optimum-int8", artifacts / "optimum-int8-no-past"


def test_exports_of_optimum_load_score_and_generate_alike(optimum_exports: tuple[Path, Path]) -> None:
    pytest.importorskip("onnxruntime")
    prompts, pairs = ["12+30=", "a longer prompt"], [("12+30=", "42"), ("", "abc")]
    found = []
    for folder in optimum_exports:
        with OnnxRuntimeAdapter().open(folder, threads=1) as runtime:
            facts = runtime.facts()
            assert (facts.twin, facts.dequantized, facts.settings["engine"]) == ("own-files", False, "session")
            assert facts.kernel is not None and facts.kernel.startswith("DynamicQuantizeMatMul")
            tokens = runtime.tokenize(prompts[1])
            logits, answers = runtime.logits(tokens), runtime.generate(prompts, max_tokens=6)
            scores = [one.logprob for one in runtime.score(pairs)]
            # Every token is read anew: what keys and values remember is what a fresh pass computes.
            written: list[int] = []
            for _ in range(3):
                written.append(int(runtime.logits(tokens + written)[-1].argmax()))
            assert answers[1].startswith(runtime.detokenize(written))
            found.append((logits, scores, answers))
    (logits, scores, answers), (others, their_scores, their_answers) = found
    assert logits.shape == (len(tokens), 258)
    np.testing.assert_allclose(logits, others, atol=1e-3)
    assert scores == pytest.approx(their_scores, abs=1e-2)
    assert answers == their_answers


def test_an_export_of_optimum_is_inspected(optimum_exports: tuple[Path, Path]) -> None:
    from mlflow_quantgov.artifact.inspect import inspect

    for folder in optimum_exports:
        found = inspect(folder)
        assert (found.quantization.format, found.quantization.bits, found.quantization.activation_bits) == (
            "onnx",
            8,
            8,
        )
        assert found.structure.num_layers == 1 and found.is_language_model
        # The output matrix repeats the embedding, is stored beside it, and counts once.
        matrices = 258 * 32 + 32 * (32 + 16 + 16 + 32) + 3 * 48 * 32
        assert found.quantization.quantized_parameters == matrices < found.quantization.total_parameters
