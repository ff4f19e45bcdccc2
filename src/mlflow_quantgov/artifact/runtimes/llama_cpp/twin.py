"""A lossless GGUF twin of a full-precision Llama folder, proved equal tensor by tensor.

llama.cpp does not read safetensors. The twin holds the same numbers in llama.cpp's order: the rows of the query and key
projections are permuted, because llama.cpp rotates neighbouring pairs where Hugging Face rotates halves (source:
`LlamaModel.permute` of llama.cpp's converter). Norms are float32 there; widening bfloat16 or float16 to float32 is
exact.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored, read_folder
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin_tokenizer import TokenizerMetadata, read_json, read_tokenizer
from mlflow_quantgov.artifact.runtimes.twins import source_digest
from mlflow_quantgov.errors import ArtifactError, require

TwinType = Literal["auto", "BF16", "F16", "F32"]
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
"""`general.file_type` of GGUF."""
RECIPE = "gguf-twin 1"
_CONVERT = "convert the parent with llama.cpp's own converter and give the .gguf file, or measure with transformers"
_SOURCES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@dataclass(frozen=True)
class TwinProof:
    """What was compared, after the twin was written and read back."""

    tensors: int
    """Tensors compared; every tensor of both files."""
    elements: int
    dtype: str
    """Storage type of the twin's matrices."""
    differing: tuple[str, ...]
    """Names of tensors with any differing bit; empty, or the twin is refused."""


@dataclass(frozen=True)
class Twin:
    """A GGUF file with the proof that it holds the same numbers."""

    path: Path
    proof: TwinProof


def reason_no_twin(folder: Path) -> str | None:
    """Why no twin of a folder can be made, or None. Reads `config.json` alone."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        return "it holds neither one .gguf file nor a config.json with safetensors"
    try:
        config = read_json(folder / "config.json")
    except ArtifactError as error:
        return error.what
    if config.get("quantization_config") or config.get("compression_config"):
        return "it is quantized in a format that llama.cpp does not read"
    architectures = config.get("architectures")
    if architectures != ["LlamaForCausalLM"]:
        return f"a lossless twin is made of LlamaForCausalLM alone, not of {architectures}"
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else "?"
    if kind != "default" or config.get("attention_bias") or config.get("mlp_bias"):
        return "its scaled rotary positions or biases are not converted"
    return None


def gguf_twin(folder: Path, cache: Path, *, dtype: TwinType = "auto") -> Twin:
    """Write (or find in `cache`) the GGUF twin of a folder, and prove it equal.

    The proof is made anew on every call: a file in the cache is not believed.

    Args:
        folder: Full-precision Llama folder: config.json, *.safetensors, tokenizer.json.
        cache: Folder to keep the twin in, by the digest of the files that it was made from.
        dtype: Storage type of the matrices. `auto` keeps the type that all of them have (BF16 runs faster than F32 in
            llama.cpp, and is what a fair comparison of speed needs), and is F32 where they differ: F32 holds them all.

    Raises:
        ArtifactError: It cannot be converted without loss, or the twin differs.
        MissingExtraError: `gguf` is not installed.
    """
    reason = reason_no_twin(folder)
    if reason:
        raise _no_twin(folder, reason)
    tensors = read_folder(folder)
    kinds = matrix_types(tensors)
    stored = dtype if dtype != "auto" else next(iter(kinds)) if len(kinds) == 1 else "F32"
    if not all(tensor.holds(stored) for tensor in tensors.values() if len(tensor.shape) > 1):
        held = "/".join(sorted(kinds))
        fix = "take F32, which holds all of them (source_type: F32 in a recipe), or leave the type out"
        raise _no_twin(folder, f"its tensors are {held}, and {stored} does not hold them exactly", fix)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"twin-{source_digest(folder, RECIPE, _SOURCES)[:32]}-{stored}.gguf"
    if not path.is_file():
        _write(folder, tensors, path, stored)
    proof = prove_twin(folder, path)
    if proof.differing:
        path.unlink(missing_ok=True)
        raise _no_twin(folder, f"the converted file differs in {', '.join(proof.differing[:3])}")
    return Twin(path, proof)


def matrix_types(tensors: Mapping[str, Stored]) -> set[str]:
    """Storage types of the matrices; vectors are always float32 in a twin."""
    return {tensor.dtype for tensor in tensors.values() if len(tensor.shape) > 1}


def prove_twin(folder: Path, path: Path) -> TwinProof:
    """Compare every tensor of a folder with its counterpart in a GGUF file, bit by bit.

    Both sides are widened to float32, which is exact for BF16 and F16, and compared as bits; the permutation of q and
    k rows is undone first. A tensor that only one side has counts as differing.

    Raises:
        ArtifactError: A file does not read.
    """
    gguf = require("gguf", extra="gguf", purpose="read GGUF files")
    try:
        found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise _no_twin(folder, f"{path.name} does not read as GGUF") from error
    heads = _heads(read_json(folder / "config.json"))
    differing: list[str] = []
    elements = 0
    kinds: set[str] = set()
    tensors = read_folder(folder)
    for name, tensor in tensors.items():
        counterpart = found.pop(gguf_name(name), None)
        elements += int(np.prod(tensor.shape))
        if counterpart is None or not _equal(name, tensor, counterpart, heads):
            differing.append(name)
        elif len(tensor.shape) > 1:
            kinds.add(counterpart.tensor_type.name)
    differing += sorted(found)
    return TwinProof(len(tensors), elements, "/".join(sorted(kinds)), tuple(differing))


def gguf_name(name: str) -> str:
    """Name in GGUF of a Llama tensor; empty where it has none."""
    stem, _, kind = name.rpartition(".")
    if kind != "weight":
        return ""
    if stem in _TOP:
        return f"{_TOP[stem]}.weight"
    parts = stem.split(".", 3)
    if parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[2].isdecimal() and parts[3] in _LAYER:
        return f"blk.{int(parts[2])}.{_LAYER[parts[3]]}.weight"
    return ""


def hugging_face_name(name: str) -> str:
    """Hugging Face's name of a Llama tensor in GGUF: the inverse of `gguf_name`; empty where it has none."""
    stem = name.removesuffix(".weight")
    top = {ours: theirs for theirs, ours in _TOP.items()}
    if stem in top:
        return f"{top[stem]}.weight"
    parts = stem.split(".", 2)
    layer = {ours: theirs for theirs, ours in _LAYER.items()}
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal() and parts[2] in layer:
        return f"model.layers.{int(parts[1])}.{layer[parts[2]]}.weight"
    return ""


def permute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Hugging Face's order of rotary rows [heads * size, in] in llama.cpp's order."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The inverse of `permute`."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _equal(name: str, tensor: Stored, counterpart: Any, heads: tuple[int, int]) -> bool:
    """Whether a GGUF tensor holds the same float32 bits."""
    kind = counterpart.tensor_type.name
    if kind not in FILE_TYPES:
        return False
    raw = np.asarray(counterpart.data)
    shape = tuple(int(size) for size in reversed(counterpart.shape))
    if shape != tensor.shape:
        return False
    bits = np.frombuffer(raw.tobytes(), dtype=np.uint32 if kind == "F32" else np.uint16).reshape(shape)
    values = Stored(kind, shape, bits).widened()
    rotary = _rotary_heads(name, heads)
    if rotary:
        values = unpermute(values, rotary)
    return bool(np.array_equal(values.view(np.uint32), tensor.widened().view(np.uint32)))


def _write(folder: Path, tensors: dict[str, Stored], path: Path, stored: str) -> None:
    """Write the twin under a temporary name, and give it its own when it is whole."""
    gguf = require("gguf", extra="gguf", purpose="write GGUF files")
    config = read_json(folder / "config.json")
    unknown = [name for name in tensors if not gguf_name(name)]
    if unknown:
        raise _no_twin(folder, f"tensor {unknown[0]} has no place in a GGUF file")
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise _no_twin(folder, "it has no embedding matrix")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        writer = gguf.GGUFWriter(temporary, "llama")
        try:
            _metadata(folder, config, read_tokenizer(folder, embedding.shape[0]), writer, stored)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise _no_twin(folder, f"config.json lacks or misstates {error}") from error
        kinds = {name: "F32" if len(tensor.shape) == 1 else stored for name, tensor in tensors.items()}
        types = gguf.GGMLQuantizationType
        for name, tensor in tensors.items():
            size = int(np.prod(tensor.shape)) * (4 if kinds[name] == "F32" else 2)
            held = np.dtype(np.float32 if kinds[name] == "F32" else np.float16)
            writer.add_tensor_info(gguf_name(name), tensor.shape, held, size, raw_dtype=types[kinds[name]])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        try:
            for data in _converted(tensors, kinds, _heads(config)):
                writer.write_tensor_data(data)
        except ValueError as error:
            raise _no_twin(
                folder, "its query or key rows do not divide into the heads that config.json names"
            ) from error
        finally:
            writer.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _converted(tensors: dict[str, Stored], kinds: dict[str, str], heads: tuple[int, int]) -> Iterator[NDArray[Any]]:
    """Data of each tensor as llama.cpp wants it, one at a time."""
    for name, tensor in tensors.items():
        data = tensor.widened() if kinds[name] == "F32" else tensor.as_16_bit(kinds[name])
        rotary = _rotary_heads(name, heads)
        yield np.ascontiguousarray(permute(data, rotary) if rotary else data)


def _metadata(folder: Path, config: dict[str, Any], tokenizer: TokenizerMetadata, writer: Any, stored: str) -> None:
    """Everything that llama.cpp needs to know besides the tensors."""
    heads, kv_heads = _heads(config)
    rope = config.get("rope_parameters") or {}
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(folder.name)
    writer.add_file_type(FILE_TYPES[stored])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(len(tokenizer.tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types(list(tokenizer.types))
    writer.add_token_merges(list(tokenizer.merges))
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_space_prefix(False)
    adders = {"bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id}
    adders |= {"unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id}
    for role, token in tokenizer.special.items():
        adders[role](token)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _heads(config: dict[str, Any]) -> tuple[int, int]:
    """Query heads and key/value heads."""
    heads = config.get("num_attention_heads")
    groups = config.get("num_key_value_heads") or heads
    if not isinstance(heads, int) or not isinstance(groups, int) or min(heads, groups) < 1:
        raise ArtifactError(
            "config.json does not say how many attention heads the model has.",
            why="The order of its query and key rows depends on it.",
            fix="put `num_attention_heads` and `num_key_value_heads` into config.json",
        )
    return heads, groups


def _rotary_heads(name: str, heads: tuple[int, int]) -> int:
    """Heads whose rows are permuted: of q, of k, or 0 for every other tensor."""
    return heads[0] if name.endswith("q_proj.weight") else heads[1] if name.endswith("k_proj.weight") else 0


def _no_twin(folder: Path, reason: str, fix: str = _CONVERT) -> ArtifactError:
    return ArtifactError(
        f"No lossless GGUF twin of {folder.name} can be made: {reason}.",
        why="Without one the parent cannot run in llama.cpp beside its quantized version.",
        fix=fix,
    )
