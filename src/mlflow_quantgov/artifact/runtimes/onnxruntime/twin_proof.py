"""Compares a full-precision folder with the fp32 graph that onnxruntime-genai's builder made of it, bit by bit.

The builder transposes matrices, joins query, key and value, and keeps one matrix where embedding and output are tied;
widening bfloat16 or float16 to float32 is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import read_folder
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin_tokenizer import read_json
from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE
from mlflow_quantgov.errors import ArtifactError, require

_PART = re.compile(r"model\.layers\.(\d+)\.self_attn\.(q|k|v)_proj\.(weight|bias)")
_NORM_OF_HEADS = re.compile(r"model\.layers\.(\d+)\.self_attn\.(q|k)_norm\.weight")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(self_attn\.o_proj|mlp\.(?:gate|up|down)_proj)\.(weight|bias)")
_NORM = re.compile(r"model\.layers\.(\d+)\.(?:input|post_attention)_layernorm\.weight")
_OPERATOR = {"weight": "MatMul", "bias": "Add"}
_ROTARY = ("cos_cache", "sin_cache")


@dataclass(frozen=True)
class OnnxTwin:
    """A folder for onnxruntime-genai with what was compared."""

    path: Path
    tensors: int
    """Tensors of the source that were compared; all of them."""
    differing: tuple[str, ...]
    """Names of tensors without an equal counterpart, of either side; empty for a lossless twin."""

    @property
    def kind(self) -> str:
        """`lossless-twin` where everything is equal, else `converted`."""
        return "converted" if self.differing else "lossless-twin"


def prove_twin(folder: Path, path: Path) -> OnnxTwin:
    """Compare every tensor of a folder with its counterpart in the twin's graph, bit by bit as float32.

    Where any tensor has no equal counterpart, or the graph holds a float tensor that came from nowhere, the model still
    runs, but as `converted`: a confounder that evidence shows. Rotary tables are no weights: they are computed from
    `rope_theta`, and compared within float32 rounding.

    Raises:
        ArtifactError: A file does not read.
    """
    onnx = require("onnx", extra="onnx", purpose=PURPOSE)
    try:
        graph = onnx.load(str(path / "model.onnx"), load_external_data=False).graph
        stored = {one.name: one for one in graph.initializer}
        left = {name for name, one in stored.items() if one.data_type in _floats(onnx)}
        differing = []
        tensors = read_folder(folder)
        for name, tensor in tensors.items():
            found = next(iter(_counterparts(name, set(stored), tensors.keys())), None)
            if found is None:
                differing.append(name)
                continue
            theirs = onnx.numpy_helper.to_array(stored[found], str(path))
            equal = theirs.dtype == np.float32 and _equal(name, tensor.widened(), theirs, tensors)
            left.discard(found)
            if not equal:
                differing.append(name)
        tables = {name: onnx.numpy_helper.to_array(stored[name], str(path)) for name in _ROTARY if name in stored}
        if not _rotary_equal(read_json(folder / "config.json"), tables):
            differing += sorted(tables)
        differing += sorted(left - set(_ROTARY))
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"The ONNX twin of {folder.name} does not read: {' '.join(str(error).split())[:200]}.",
            why="What does not read cannot be proved equal.",
            fix=f"rm -r {path}, and measure again",
        ) from error
    return OnnxTwin(path, len(tensors), tuple(differing))


def _counterparts(name: str, stored: set[str], sources: Any) -> Iterator[str]:
    """Names that a tensor may have in the graph, of those that are there."""
    candidates = [name]
    if part := _PART.fullmatch(name):
        stem = f"model.layers.{part[1]}.attn."
        candidates = [f"{stem}{one}_proj.{_OPERATOR[part[3]]}.{part[3]}" for one in ("qkv", part[2])]
    elif norm := _NORM_OF_HEADS.fullmatch(name):
        candidates = [f"model.layers.{norm[1]}.attn.{norm[2]}_norm.layernorm.weight"]
    elif layer := _LAYER.fullmatch(name):
        stem = f"model.layers.{layer[1]}.{layer[2].replace('self_attn', 'attn')}"
        candidates = [f"{stem}.{_OPERATOR[layer[3]]}.{layer[3]}"]
    elif name == "lm_head.weight":
        candidates = ["lm_head.MatMul.weight"]
    elif name == "model.embed_tokens.weight":
        # Tied: one matrix serves both, stored for the output.
        candidates = [name] if "lm_head.weight" in sources else [name, "lm_head.MatMul.weight"]
    elif name == "model.norm.weight":
        candidates = [one for one in stored if one.endswith("final_norm_layernorm.weight")]
    elif not _NORM.fullmatch(name):
        candidates = []
    yield from (one for one in candidates if one in stored)


def _equal(name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32], sources: dict[str, Any]) -> bool:
    """Whether a tensor [out, in] has the same bits in the graph, where it lies as [in, out], maybe beside others."""
    part = _PART.fullmatch(name)
    if ours.ndim == 2 and (theirs.shape != ours.shape or not name.startswith("model.embed_tokens")):
        theirs = theirs.T
    if part and len(theirs) > len(ours):
        before = "qkv"[: "qkv".index(part[2])]
        start = sum(sources[name.replace(f".{part[2]}_proj.", f".{role}_proj.")].shape[0] for role in before)
        theirs = theirs[start : start + len(ours)]
    if ours.shape != theirs.shape:
        return False
    return bool(np.array_equal(ours.view(np.uint32), np.ascontiguousarray(theirs).view(np.uint32)))


def _rotary_equal(config: dict[str, Any], tables: dict[str, NDArray[Any]]) -> bool:
    """Whether the rotary tables [positions, half a head] are those that the config asks for."""
    if set(tables) != set(_ROTARY):
        return False
    for name, function in zip(_ROTARY, (np.cos, np.sin), strict=True):
        positions, half = tables[name].shape
        frequencies = _frequencies(config, half)
        if frequencies is None:
            return False
        angles = np.outer(np.arange(positions), frequencies)
        # A float32 angle is off by its own rounding and by that of its frequency: 2 * 2**-24 of the position.
        if not np.allclose(tables[name], function(angles), rtol=0, atol=1e-6 + 2e-7 * positions):
            return False
    return True


def _frequencies(config: dict[str, Any], half: int) -> NDArray[np.float64] | None:
    """Rotary frequencies, plain or scaled as in Llama 3; None for a scaling that is not known here.

    Source of the scaling: `_compute_llama3_parameters` of transformers.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = float(rope.get("rope_theta") or config.get("rope_theta", 10000.0))
    plain: NDArray[np.float64] = theta ** -(np.arange(half) / half)
    if kind == "default":
        return plain
    if kind != "llama3":
        return None
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(rope["original_max_position_embeddings"]) * plain / (2 * np.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    scaled: NDArray[np.float64] = (1 - share) * plain / factor + share * plain
    return scaled


def _floats(onnx: Any) -> set[int]:
    kinds = onnx.TensorProto
    return {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE}
