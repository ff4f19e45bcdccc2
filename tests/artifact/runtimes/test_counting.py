"""Tokens are counted where a tokenizer is at hand, without loading weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.runtimes import counting
from mlflow_quantgov.artifact.runtimes.counting import count_tokens
from mlflow_quantgov.artifact.runtimes.llama_cpp.runtime import LlamaRuntime, LlamaSettings

ARTIFACTS = Path(__file__).parent.parent.parent / "data" / "artifacts"
TEXTS = ["hello there", "the kettle"]


@pytest.mark.needs("tokenizers")
def test_a_tokenizer_beside_the_weights_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (count_tokens(ARTIFACTS / "optimum-int8", [text]) for text in TEXTS)
    assert one and other and count_tokens(ARTIFACTS / "optimum-int8", TEXTS) == one + other
    monkeypatch.setattr(counting, "MAX_CHARACTERS", 20)
    assert count_tokens(ARTIFACTS / "optimum-int8", TEXTS) is None
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    assert count_tokens(tmp_path, ["short"]) is None


def test_without_a_tokenizer_nothing_is_counted(tmp_path: Path) -> None:
    assert count_tokens(ARTIFACTS / "gptq-w4g32", TEXTS) is None
    assert count_tokens(ARTIFACTS / "tiny-Q4_0.gguf", TEXTS) is None  # its file holds no vocabulary
    shutil.copy(ARTIFACTS / "tiny-Q4_0.gguf", tmp_path)
    assert count_tokens(tmp_path, TEXTS) is None
    assert count_tokens(tmp_path / "nowhere", TEXTS) is None


def test_the_vocabulary_of_a_gguf_file_counts_as_its_runtime_does(skills_twin: Path) -> None:
    with LlamaRuntime(skills_twin, LlamaSettings(threads=1)) as runtime:
        expected = sum(len(runtime.tokenize(text)) for text in TEXTS)
    assert count_tokens(skills_twin, TEXTS) == count_tokens(skills_twin.parent, TEXTS) == expected > 2
