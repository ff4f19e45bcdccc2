"""Which operators multiply with quantized weights in a pass of one token, and whether the weights are expanded for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.artifact.runtimes.transformers_weights import is_low_bit, parts_of
from mlflow_quantgov.errors import require

PURPOSE = "see which kernels transformers chooses"
_LARGE = 4
"""Tensors above so many times a layer's longer side are weights: one token's activations have at most that side."""
_MOVES = ("copy", "clone", "empty", "sum", "amax", "_has_")
"""Beginnings of operators that carry numbers about or add them up, and multiply nothing."""


@dataclass(frozen=True)
class Operators:
    """What a pass of one token did with the quantized weights."""

    names: tuple[str, ...]
    """Operators that took quantized weights and gave something smaller, commonest first (`bitsandbytes::gemv_4bit`)."""
    expanded_share: float | None
    """Of the quantized weights in modules, those of which the pass made floats of 16 bit or more; None without such modules."""


def watch(model: Any, run: Callable[[], Any]) -> Operators:
    """Run one pass of one token and look at every operator inside the modules that hold quantized weights.

    A kernel that unpacks weights inside itself, tile by tile, is a kernel; a pass that writes the whole matrix out as floats and
    multiplies with that is emulation, whatever the module is called.

    Args:
        model: As transformers loaded it.
        run: The pass; anything that ran before (repacking, expansion on a first pass) is not seen.
    """
    sizes = {name: size for name, module in model.named_modules() if (size := _quantized_size(module)) is not None}
    if not sizes:
        return Operators((), None)
    found: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    with _inside(model, sizes) as current, _mode(current, sizes, found, floats):
        run()
    expanded = sum(out * inputs for name, (out, inputs) in sizes.items() if floats[name] >= out * inputs)
    total = sum(out * inputs for out, inputs in sizes.values())
    return Operators(tuple(name for name, _ in found.most_common(5)), expanded / total)


def _quantized_size(module: Any) -> tuple[int, int] | None:
    """[out, in] of a linear module that holds a low-bit tensor; None for any other."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if not any(is_low_bit(part) and part.numel() > 1 for tensor in tensors for part in parts_of(tensor)):
        return None
    out, inputs = getattr(module, "out_features", None), getattr(module, "in_features", None)
    return (int(out), int(inputs)) if isinstance(out, int) and isinstance(inputs, int) else None


@contextmanager
def _inside(model: Any, sizes: dict[str, tuple[int, int]]) -> Iterator[list[str]]:
    """Keeps the name of the innermost watched module that runs at the end of a list."""
    current: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        if name in sizes:
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: current.append(name)))
            hooks.append(module.register_forward_hook(lambda *_: current.pop() and None, always_call=True))
    try:
        yield current
    finally:
        for hook in hooks:
            hook.remove()


def _mode(current: list[str], sizes: dict[str, tuple[int, int]], found: Counter[str], floats: Counter[str]) -> Any:
    """A mode of torch that sees every operator; tensors of a class of their own unfold into plain operators first."""
    torch = require("torch", extra="transformers", purpose=PURPOSE)
    dispatch = require("torch.utils._python_dispatch", extra="transformers", purpose=PURPOSE)
    tree = require("torch.utils._pytree", extra="transformers", purpose=PURPOSE)

    class Watching(dispatch.TorchDispatchMode):  # type: ignore[misc, name-defined]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(hasattr(kind, "__tensor_flatten__") for kind in types):
                return NotImplemented
            given = func(*args, **(kwargs or {}))
            if not current:
                return given
            name = current[-1]
            out, inputs = sizes[name]
            read = [one for one in tree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            # By storage and not by schema: outside of autograd `to` is one operator, which may or may not copy.
            before = {one.untyped_storage().data_ptr() for one in read}
            made = [one for one in tree.tree_leaves(given) if isinstance(one, torch.Tensor)]
            made = [one for one in made if one.untyped_storage().data_ptr() not in before]
            large = [one for one in made if one.numel() > _LARGE * max(out, inputs)]
            floats[name] += sum(one.numel() for one in large if one.is_floating_point() and not is_low_bit(one))
            label = func._schema.name.removeprefix("aten::")
            packed = [one for one in read if is_low_bit(one)]
            heavy = any(one.nbytes * 16 > out * inputs for one in packed)
            if heavy and made and not large and not label.startswith(_MOVES):
                found[label] += 1
            return given

    return Watching()
