"""Every layout of HQQ and quanto in one small folder each: `python tests/data/artifacts/make_layouts.py [hqq] [quanto]`.

By hqq 0.2.8 and optimum-quanto 0.2.7 on a CPU, with torch 2.13. Beside each folder `NAME.npz` holds, by the name of the
matrix, the weight that went in (`weight.NAME`) and what the library itself makes of its codes (`back.NAME`).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def save(name: str, tensors: dict[str, Any], numbers: dict[str, np.ndarray], method: str) -> None:
    """Write the folder and the numbers beside it."""
    from safetensors.torch import save_file

    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_file({key: one.contiguous() for key, one in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": {"quant_method": method}}) + "\n")
    np.savez_compressed(HERE / f"{name}.npz", **numbers)


def make_hqq() -> None:
    """All widths, both axes, with one scale for all, with packed words called floats, with whole zero points."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Any] = {}
    numbers: dict[str, np.ndarray] = {}
    settings = [{"nbits": bits, "axis": axis} for bits in (8, 6, 5, 4, 3, 2, 1.58, 1) for axis in (0, 1)]
    settings += [{"nbits": 4, "axis": 1, "view_as_float": True}, {"nbits": 4, "axis": 1, "channel_wise": False}]
    settings += [{"nbits": 4, "axis": 1, "round_zero": True, "optimize": False}]
    for number, one in enumerate(settings):
        linear = torch.nn.Linear(48, 16, bias=False)
        linear.weight.data = (torch.randn(16, 48, generator=generator) / 20).half().float()
        weight = linear.weight.detach().clone()
        config = BaseQuantizeConfig(nbits=one["nbits"], group_size=24, axis=one["axis"])
        config["weight_quant_params"] |= {key: value for key, value in one.items() if key not in {"nbits", "axis"}}
        # Half of them in float16, the library's own choice.
        dtype = torch.float16 if number % 2 else torch.float32
        layer = HQQLinear(linear, config, compute_dtype=dtype, device="cpu", del_orig=False)
        name = f"model.layers.0.mlp.part{number}"
        tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
        layer.meta["scale"], layer.meta["zero"] = layer.meta["scale"].float(), layer.meta["zero"].float()
        layer.meta["compute_dtype"] = torch.float32
        numbers[f"weight.{name}"] = weight.numpy().astype(np.float16)
        numbers[f"back.{name}"] = layer.dequantize().numpy()
    save("hqq-layouts", tensors, numbers, "hqq")


def make_quanto() -> None:
    """2 and 4 bit in groups of 128, 96 and 32 and without, 8 bit, float8; in bfloat16 and float32, or float16."""
    import torch
    from optimum.quanto import freeze, qfloat8_e4m3fn, qfloat8_e5m2, qint2, qint4, qint8, quantize

    generator = torch.Generator().manual_seed(0)
    kinds = [(kind, columns) for kind in (qint2, qint4) for columns in (256, 192, 160, 48)]
    kinds += [(kind, 48) for kind in (qint8, qfloat8_e4m3fn, qfloat8_e5m2)]
    tensors: dict[str, Any] = {}
    numbers: dict[str, np.ndarray] = {}
    for number, (kind, columns) in enumerate(kinds):
        for dtype in (torch.bfloat16, torch.float32) if columns != 192 else (torch.float16,):
            name = f"model.layers.0.mlp.part{number}_{str(dtype).removeprefix('torch.')}"
            # Six rows do not fill the bytes of 2-bit codes; its kernel for groups of 128 takes sixteen at least.
            rows = 16 if (kind, columns) == (qint4, 256) else 6
            # The shape of a matrix in groups stands in its bias.
            model = torch.nn.Sequential(torch.nn.Linear(columns, rows, bias=True))
            model[0].weight.data = torch.randn(rows, columns, generator=generator) / 20
            model[0].bias.data.zero_()
            model.to(dtype)
            numbers[f"weight.{name}"] = model[0].weight.detach().float().numpy()
            quantize(model, weights=kind)
            freeze(model)
            tensors |= {f"{name}.{key.removeprefix('0.')}": one for key, one in model.state_dict().items()}
            numbers[f"back.{name}"] = model[0].weight.dequantize().detach().float().numpy()
    save("quanto-layouts", tensors, numbers, "quanto")


MAKERS: dict[str, Callable[[], None]] = {"hqq": make_hqq, "quanto": make_quanto}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or MAKERS:
        MAKERS[chosen]()
