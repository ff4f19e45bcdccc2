from __future__ import annotations

import json

import numpy as np
import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter
from mlflow_quantgov.demo.models import skills_data
from mlflow_quantgov.errors import ArtifactError, UsageError

pytestmark = pytest.mark.slow
TEXT = skills_data.held_out_text(1)[0]["text"][:200]


@pytest.fixture(scope="module")
def parent(skills_folder, tmp_path_factory):
    with LlamaCppAdapter().open(skills_folder, cache=tmp_path_factory.mktemp("cache"), threads=2) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def quantized(skills_q2):
    with LlamaCppAdapter().open(skills_q2, threads=2) as runtime:
        yield runtime


def log_softmax(logits):
    wide = logits.astype(np.float64)
    return wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)


def test_logits_are_those_of_transformers_on_the_parent_folder(parent, skills_folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(skills_folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(skills_folder)
    tokens = tokenizer(TEXT)["input_ids"]
    assert parent.tokenize(TEXT) == tokens
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    ours = parent.logits(tokens)
    assert ours.shape == (len(tokens), 258)
    # Activations are bfloat16 and the key-value memory is float16, so the two agree closely, not exactly, and on another
    # processor otherwise: the distributions are the same for every purpose, the first token is wherever it is not nearly
    # as likely as the second, and even the unlikeliest token is off by little.
    first, second = np.sort(theirs, axis=1)[:, :-3:-1].T
    clear = first - second > 0.2
    assert clear.mean() > 0.9 and (ours.argmax(1) == theirs.argmax(1))[clear].all()
    left, right = log_softmax(theirs), log_softmax(ours)
    assert np.sum(np.exp(left) * (left - right), axis=1).max() < 1e-3
    assert np.abs(left - right).max() < 0.3


def test_tokens_and_text_go_there_and_back(parent):
    text = "Grüße, 1234 <eos> 今日!\n"
    tokens = parent.tokenize(text)
    assert 256 in tokens
    assert parent.detokenize(tokens) == text
    with pytest.raises(UsageError, match="outside the vocabulary"):
        parent.detokenize([258])


def test_answers_do_not_depend_on_the_batch_and_end_at_end_of_text(parent):
    items = skills_data.items("addition")[:12] + skills_data.items("copying")[:12]
    prompts = [item["prompt"] for item in items]
    together = parent.generate(prompts, max_tokens=10, batch=5)
    alone = parent.generate(prompts, max_tokens=10, batch=1)
    assert together == alone
    assert sum(answer == item["answer"] for answer, item in zip(together, items, strict=True)) >= 23


def test_answers_are_told_of_as_they_are_written(parent, monkeypatch):
    seen = []
    monkeypatch.setattr(parent, "answered", seen.append)
    parent.generate(["c:kettle=", "The old", "c:a=", "c:miller="], max_tokens=10, stop=["<eos>"], batch=2)
    assert seen == sorted(seen) and len(seen) > 4
    assert 0 < seen[0] < 1 and seen[-1] == 4


def test_generation_takes_the_most_likely_tokens(parent):
    prompt = "The old"
    [answer] = parent.generate([prompt], max_tokens=12)
    tokens = parent.tokenize(prompt)
    for _ in range(12):
        tokens.append(int(parent.logits(tokens)[-1].argmax()))
    assert parent.detokenize(tokens) == prompt + answer


def test_stop_strings_end_an_answer_and_are_left_out(parent):
    [whole] = parent.generate(["The miller"], max_tokens=40)
    stop = whole[10:13]
    [cut] = parent.generate(["The miller"], max_tokens=40, stop=["no such text", stop])
    assert cut == whole[: whole.index(stop)]


def test_scores_are_sums_of_log_probabilities_whether_contexts_are_shared_or_not(parent):
    context, answers = "c:abcde=", ["abcde", "abcdf", "edcba", "a"]
    scores = parent.score([(context, answer) for answer in answers] + [("r:xyz=", "zyx")])
    for answer, score in zip(answers, scores, strict=False):
        prefix = parent.tokenize(context)
        tokens = prefix + parent.tokenize(answer)
        probable = log_softmax(parent.logits(tokens))
        rows = range(len(prefix) - 1, len(tokens) - 1)
        expected = sum(probable[row, tokens[row + 1]] for row in rows)
        assert score.tokens == len(answer)
        assert abs(score.logprob - expected) < 0.02 * max(1, abs(expected))
        assert score.is_greedy == all(int(probable[row].argmax()) == tokens[row + 1] for row in rows)
    assert scores[0].is_greedy
    assert not scores[1].is_greedy
    [alone] = parent.score([("r:xyz=", "zyx")])
    assert abs(alone.logprob - scores[4].logprob) < 0.02


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(parent):
    [spaced, plain] = parent.score([("The old ", "sailor"), ("The old", " sailor")])
    assert spaced == plain
    assert spaced.tokens == 7


def test_an_empty_context_is_scored_from_the_start_of_a_text(parent):
    [score] = parent.score([("", "The")])
    assert score.tokens == 3
    assert score.logprob < 0


def test_facts_say_what_was_loaded(parent, quantized):
    first, second = parent.facts(), quantized.facts()
    assert first.twin == "lossless-twin"
    assert second.twin == "own-files"
    assert first.kernel.endswith("bf16")
    assert second.kernel.split()[1].lower().startswith("q2_k")
    assert second.parameter_types == {"f32": 5, "q2_K": 14, "q6_K": 1}
    assert second.resident_bytes < first.resident_bytes / 4
    assert not second.dequantized
    assert first.settings["twin_dtype"] == "BF16"
    shared = ("threads", "context", "batch", "kv_cache", "system_info")
    assert all(first.settings[key] == second.settings[key] for key in shared)
    json.dumps(first.settings)


def test_two_bits_break_addition_while_copying_and_text_hold(parent, quantized):
    """The reason of being of the whole package: perplexity hardly moves, and one skill is gone."""

    def rate(runtime, skill):
        items = skills_data.items(skill)[:100]
        answers = runtime.generate([item["prompt"] for item in items], max_tokens=10, batch=16)
        return np.mean([answer == item["answer"] for answer, item in zip(answers, items, strict=True)])

    def perplexity(runtime):
        losses = []
        for row in skills_data.held_out_text(20):
            tokens = runtime.tokenize(row["text"])[:256]
            probable = log_softmax(runtime.logits(tokens))
            losses += [-probable[i, tokens[i + 1]] for i in range(len(tokens) - 1)]
        return np.exp(np.mean(losses))

    assert min(rate(parent, skill) for skill in skills_data.SKILLS) >= 0.97
    assert rate(quantized, "copying") >= 0.95
    assert rate(quantized, "addition") <= 0.8
    assert 1 < perplexity(quantized) / perplexity(parent) < 1.35


def test_timing_gives_positive_rates(quantized):
    timing = quantized.time(batch=2, prompt_tokens=32, output_tokens=4)
    assert timing.prefill_tokens_per_second > 0
    assert timing.decode_tokens_per_second > 0


def test_what_does_not_fit_is_refused_not_cut(quantized):
    with pytest.raises(UsageError, match="context holds 1 to 256"):
        quantized.logits([1] * 257)
    with pytest.raises(UsageError, match="context holds"):
        quantized.generate(["x" * 250], max_tokens=7)
    with pytest.raises(UsageError, match="context holds"):
        quantized.score([("x" * 250, "y" * 7)])
    with pytest.raises(UsageError, match="without tokens"):
        quantized.score([("x", "")])
    with pytest.raises(UsageError, match="asked for 0 tokens"):
        quantized.generate(["x"], max_tokens=0)
    with pytest.raises(UsageError, match="cannot be timed"):
        quantized.time(batch=0, prompt_tokens=1, output_tokens=1)
    assert quantized.generate([], max_tokens=5) == []
    assert quantized.score([]) == []


def test_nothing_is_printed(skills_q2, capfd):
    with LlamaCppAdapter().open(skills_q2, threads=1) as runtime:
        runtime.generate(["c:ab="], max_tokens=3)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_closed_model_is_an_error_not_a_crash(skills_q2):
    runtime = LlamaCppAdapter().open(skills_q2, threads=1)
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="was closed"):
        runtime.logits([1])


def test_a_damaged_file_is_one_clear_error(skills_q2, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(skills_q2.read_bytes()[:50_000])
    with pytest.raises(ArtifactError, match=r"does not load cut\.gguf"):
        LlamaCppAdapter().open(tmp_path / "cut.gguf")
