from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, prove_twin
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import read_folder, write_file
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import (
    gguf_name,
    hugging_face_name,
    permute,
    reason_no_twin,
    unpermute,
)
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin_tokenizer import read_tokenizer
from mlflow_quantgov.errors import ArtifactError


@pytest.fixture
def parent(skills_folder, tmp_path):
    return shutil.copytree(skills_folder, tmp_path / "parent")


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | changes))


@given(heads=st.integers(1, 4), half=st.integers(1, 4), width=st.integers(1, 3))
def test_unpermute_undoes_permute(heads, half, width):
    rows = np.arange(heads * half * 2 * width).reshape(heads * half * 2, width)
    assert np.array_equal(unpermute(permute(rows, heads), heads), rows)


def test_permute_interleaves_the_halves_of_each_head():
    assert permute(np.arange(8)[:, None], 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_every_tensor_name_maps_there_and_back(skills_folder):
    for name in read_folder(skills_folder):
        assert gguf_name(name)
        assert hugging_face_name(gguf_name(name)) == name
    assert gguf_name("model.layers.0.self_attn.q_proj.bias") == ""
    assert gguf_name("model.layers.x.self_attn.q_proj.weight") == ""
    assert hugging_face_name("blk.0.something.weight") == ""


@pytest.mark.parametrize("dtype", ["auto", "BF16", "F32"])
def test_the_twin_holds_every_tensor_bit_by_bit(skills_folder, tmp_path, dtype):
    twin = gguf_twin(skills_folder, tmp_path, dtype=dtype)
    tensors = read_folder(skills_folder)
    assert twin.proof.differing == ()
    assert twin.proof.tensors == len(tensors)
    assert twin.proof.elements == sum(int(np.prod(t.shape)) for t in tensors.values())
    assert twin.proof.dtype == ("BF16" if dtype == "auto" else dtype)


def test_a_type_that_does_not_hold_the_weights_exactly_is_refused(skills_folder, tmp_path):
    with pytest.raises(ArtifactError, match="F16 does not hold them exactly"):
        gguf_twin(skills_folder, tmp_path, dtype="F16")
    assert list(tmp_path.iterdir()) == []


def test_one_flipped_bit_in_the_cached_twin_is_found_and_the_file_dropped(skills_folder, tmp_path):
    twin = gguf_twin(skills_folder, tmp_path)
    data = bytearray(twin.path.read_bytes())
    data[-1000] ^= 1
    twin.path.write_bytes(data)
    assert len(prove_twin(skills_folder, twin.path).differing) == 1
    with pytest.raises(ArtifactError, match="differs in"):
        gguf_twin(skills_folder, tmp_path)
    assert gguf_twin(skills_folder, tmp_path).proof.differing == ()


def test_swapped_query_rows_are_found(parent, tmp_path):
    twin = gguf_twin(parent, tmp_path / "cache")
    tensors = read_folder(parent)
    name = "model.layers.0.self_attn.q_proj.weight"
    other = dict(tensors)
    other[name] = type(tensors[name])("BF16", tensors[name].shape, permute(tensors[name].bits, 4))
    write_file(parent / "new", other)
    (parent / "new").replace(parent / "model.safetensors")
    assert prove_twin(parent, twin.path).differing == (name,)


def test_a_missing_tensor_counts_as_a_difference(parent, tmp_path):
    twin = gguf_twin(parent, tmp_path / "cache")
    tensors = dict(read_folder(parent))
    tensors.pop("model.norm.weight")
    write_file(parent / "new", tensors)
    (parent / "new").replace(parent / "model.safetensors")
    assert prove_twin(parent, twin.path).differing == ("output_norm.weight",)


def test_changed_weights_get_a_twin_of_their_own(parent, tmp_path):
    first = gguf_twin(parent, tmp_path / "cache").path
    edit(parent / "config.json", rms_norm_eps=1e-4)
    assert gguf_twin(parent, tmp_path / "cache").path != first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rotary"),
        ({"attention_bias": True}, "biases"),
    ],
)
def test_what_cannot_be_converted_without_loss_says_why(parent, tmp_path, change, reason):
    edit(parent / "config.json", **change)
    assert reason in reason_no_twin(parent)
    with pytest.raises(ArtifactError, match=reason):
        gguf_twin(parent, tmp_path / "cache")


@pytest.mark.parametrize("missing", ["num_hidden_layers", "rms_norm_eps", "num_attention_heads"])
def test_an_incomplete_config_leaves_nothing_behind(parent, tmp_path, missing):
    config = json.loads((parent / "config.json").read_text())
    del config[missing]
    (parent / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError):
        gguf_twin(parent, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_heads_that_do_not_divide_the_rows_leave_nothing_behind(parent, tmp_path):
    edit(parent / "config.json", num_attention_heads=3)
    with pytest.raises(ArtifactError, match="do not divide"):
        gguf_twin(parent, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_pre_tokenizers_are_named_only_where_llama_cpp_knows_them(parent):
    file = parent / "tokenizer.json"
    level = json.loads(file.read_text())["pre_tokenizer"]
    assert read_tokenizer(parent, 258).pre == "gpt-2"
    digits = {"type": "Digits", "individual_digits": True}
    edit(file, pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, level]})
    assert read_tokenizer(parent, 258).pre == "smollm"
    for other in ({"type": "Whitespace"}, None, level | {"add_prefix_space": True}, level | {"use_regex": False}):
        edit(file, pre_tokenizer=other)
        with pytest.raises(ArtifactError, match="no known llama"):
            read_tokenizer(parent, 258)


def test_tokens_beyond_the_tokenizer_are_unused_and_too_many_are_refused(parent):
    found = read_tokenizer(parent, 300)
    assert len(found.tokens) == len(found.types) == 300
    assert found.types[256] == 3
    assert found.types[299] == 5
    with pytest.raises(ArtifactError, match="malformed"):
        read_tokenizer(parent, 200)


def test_a_beginning_of_text_token_is_added_only_where_the_tokenizer_adds_it(parent):
    assert read_tokenizer(parent, 258).add_bos is False
    edit(parent / "tokenizer_config.json", bos_token="<eos>")
    single = [{"SpecialToken": {"id": "<eos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    edit(parent / "tokenizer.json", post_processor={"type": "TemplateProcessing", "single": single})
    assert read_tokenizer(parent, 258).add_bos is True
