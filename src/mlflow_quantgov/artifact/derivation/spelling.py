"""A parent's tensors as the quantized model stores them, where tools only write the same weights in another way.

- Mixture-of-experts models: `block_sparse_moe.experts.0.w1` is `mlp.experts.0.gate_proj` (llm-compressor and gptqmodel load
  with transformers 5, which has one spelling for all, and save what they loaded).
- Fused projections that were quantized apart: `gate_up_proj` is `gate_proj` above `up_proj`, `qkv_proj` likewise.
- Stacks of experts [experts, in, out] that were quantized as linear layers: gpt-oss stores gate and up in turns, and has
  biases; Llama 4 stores one after the other, and has none. Source: their modeling files in transformers 5.
- GPT-2's Conv1D stores [in, out]; every quantizer packs it as [out, in].
- Output matrices that a parent shares with its embedding, and a quantizer stored apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.dequantize import Matrix
from mlflow_quantgov.artifact.dequantize.interface import Block, Floats

Matrices = dict[str, Matrix]
_EXPERT = re.compile(r"(experts\.\d+\.)(w[123])\.")
_EXPERT_PARTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_FUSED = {"gate_up_proj": ("gate_proj", "up_proj"), "qkv_proj": ("q_proj", "k_proj", "v_proj")}
_FUSED_NAME = re.compile(r"^(?P<stem>.*\.)(?P<part>gate_up_proj|qkv_proj)\.(?P<kind>weight|bias)$")
_OF_STACK = re.compile(r"^(?P<stem>.*\.experts\.)(?P<expert>\d+)\.(?P<part>gate|up|down)_proj\.(?P<kind>weight|bias)$")
_CONV1D = re.compile(r"\.(c_attn|q_attn|c_proj|c_fc)\.weight$")
_OUTPUTS = ("lm_head.weight", "embed_out.weight", "predictions.decoder.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight")


def as_child_spells(child: Mapping[str, Matrix], parent: Mapping[str, Matrix]) -> Matrices:
    """The parent's tensors under the child's names, cut and turned as the child's are; those that differ otherwise stay.

    Args:
        child: Tensors of the quantized model by name.
        parent: Tensors of its parent by name.
    """
    found = _respelled(child, parent)
    _untie(child, found)
    return found


def _respelled(child: Mapping[str, Matrix], parent: Mapping[str, Matrix]) -> Matrices:
    found = dict(parent)
    if child.keys() - found.keys():
        _rename(child, found)
        _cut(child, found)
        _unstack(child, found)
    return found | _turned(child, found)


def shapes_as_child_spells(
    child: Mapping[str, tuple[int, ...]], parent: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The same for names and shapes alone; a shared output matrix stays what it is."""
    mine = {name: _unread(name, shape, bits=1) for name, shape in child.items()}
    theirs = {name: _unread(name, shape) for name, shape in parent.items()}
    return {name: one.shape for name, one in _respelled(mine, theirs).items()}


def _unread(name: str, shape: tuple[int, ...], bits: int | None = None) -> Matrix:
    def read(start: int, stop: int) -> Block:
        raise AssertionError("nothing is read where only shapes are compared")

    def columns_of(place: int, columns: slice) -> Floats:
        raise AssertionError("nothing is read where only shapes are compared")

    return Matrix(name, tuple(shape), "", (), read, bits, columns_of=columns_of)


def _rename(child: Mapping[str, Matrix], found: Matrices) -> None:
    """Experts under their other name."""
    left = {_one_spelling(name): name for name in found if name not in child}
    for name in sorted(child.keys() - found.keys()):
        theirs = left.get(_one_spelling(name))
        if theirs is not None:
            found[name] = replace(found.pop(theirs), name=name)


def _one_spelling(name: str) -> str:
    plain = name.replace(".block_sparse_moe.", ".mlp.")
    return _EXPERT.sub(lambda one: f"{one[1]}{_EXPERT_PARTS[one[2]]}.", plain)


def _cut(child: Mapping[str, Matrix], found: Matrices) -> None:
    """Fused projections as the projections that they consist of."""
    for name in [one for one in found if one not in child]:
        fused = _FUSED_NAME.match(name)
        if fused is None:
            continue
        parts = [child.get(f"{fused['stem']}{part}.{fused['kind']}") for part in _FUSED[fused["part"]]]
        whole, bias = found[name], fused["kind"] == "bias"
        sizes = [(one.columns if bias else one.rows) for one in parts if one is not None]
        if len(sizes) != len(parts) or sum(sizes) != (whole.columns if bias else whole.rows):
            continue
        if not bias and any(one is not None and one.columns != whole.columns for one in parts):
            continue
        del found[name]
        at = 0
        for one, size in zip(parts, sizes, strict=True):
            assert one is not None
            read = _some_columns(whole, 0, slice(at, at + size)) if bias else _some_rows(whole, at)
            found[one.name] = replace(whole, name=one.name, shape=one.shape, read=read, columns_of=None)
            at += size


def _unstack(child: Mapping[str, Matrix], found: Matrices) -> None:
    """Experts out of the stacks that hold them; a stack that is not used up stays, and is missed."""
    used: dict[str, int] = {}
    for name in sorted(child.keys() - found.keys()):
        match = _OF_STACK.match(name)
        if match is None:
            continue
        fused = f"{match['stem']}{'down_proj' if match['part'] == 'down' else 'gate_up_proj'}"
        stack = found.get(f"{fused}_bias" if match["kind"] == "bias" else fused)
        if stack is None or len(stack.shape) < 2 or int(match["expert"]) >= stack.shape[0]:
            continue
        one = _expert(child[name], stack, match, in_turns=f"{fused}_bias" in found)
        if one is not None:
            found[name] = one
            used[stack.name] = used.get(stack.name, 0) + one.rows * one.columns
    for name, weights in used.items():
        if weights == found[name].rows * found[name].columns:
            del found[name]


def _expert(child: Matrix, stack: Matrix, match: re.Match[str], *, in_turns: bool) -> Matrix | None:
    """One expert's matrix or bias; None where the stack has another shape."""
    expert, size = int(match["expert"]), child.columns if match["kind"] == "bias" else child.rows
    if match["part"] == "down":
        places = slice(0, size)
    elif in_turns:
        places = slice(int(match["part"] == "up"), 2 * size, 2)
    else:
        places = slice(0, size) if match["part"] == "gate" else slice(size, 2 * size)
    width = size if match["part"] == "down" else 2 * size
    if match["kind"] == "bias":
        if stack.shape[1:] != (width,):
            return None
        read = _some_columns(stack, expert, places)
    elif stack.shape[1:] == (child.columns, width) and stack.columns_of is not None:
        read = _turn(stack.columns_of, expert, places)
    else:
        return None
    return replace(stack, name=child.name, shape=child.shape, read=read, columns_of=None)


def _untie(child: Mapping[str, Matrix], found: Matrices) -> None:
    """The embedding as the output matrix that it also was."""
    for name in sorted(child.keys() - found.keys()):
        if name.endswith(_OUTPUTS):
            shared = [one for key, one in found.items() if key.endswith(_EMBEDDINGS) and one.shape == child[name].shape]
            if len(shared) == 1:
                found[name] = replace(shared[0], name=name)
        elif name.endswith("predictions.decoder.bias"):
            bias = found.get(name.replace(".decoder.", "."))
            if bias is not None:
                found[name] = replace(bias, name=name)


def _turned(child: Mapping[str, Matrix], found: Matrices) -> Matrices:
    """Matrices of Conv1D as linear layers have them; one that is not square shows that the model has such.

    Of unquantized ones beside them none is turned where a tool left them as they were; GGUF turns them all.
    """
    same = {name: one for name, one in child.items() if name in found and _CONV1D.search(name) and len(one.shape) == 2}
    shown = [one for name, one in same.items() if found[name].shape == one.shape[::-1] != one.shape]
    plain_too = any(one.bits is None for one in shown)
    turned = {}
    for name, one in same.items() if shown else ():
        columns_of = found[name].columns_of
        chosen = one in shown or one.bits is not None or plain_too
        if columns_of is not None and found[name].shape == one.shape[::-1] and chosen:
            read = _turn(columns_of, 0, slice(0, one.rows))
            turned[name] = replace(found[name], shape=one.shape, read=read, columns_of=None)
    return turned


def _turn(columns_of: Callable[[int, slice], Floats], place: int, columns: slice) -> Callable[[int, int], Block]:
    """Reads columns of one matrix of a stack as rows."""
    step = columns.step or 1

    def read(start: int, stop: int) -> Block:
        first = columns.start + start * step
        return Block(columns_of(place, slice(first, first + (stop - start - 1) * step + 1, step)))

    return read


def _some_rows(whole: Matrix, first: int) -> Callable[[int, int], Block]:
    return lambda start, stop: whole.read(first + start, first + stop)


def _some_columns(whole: Matrix, row: int, columns: slice) -> Callable[[int, int], Block]:
    return lambda start, stop: Block(np.ascontiguousarray(whole.read(row, row + 1).values[:, columns]))
