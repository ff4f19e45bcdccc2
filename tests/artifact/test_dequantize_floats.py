"""FP8, NVFP4 and MXFP4 against what transformers and ml_dtypes make of the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from blocks import PROJECTIONS, whole

from mlflow_quantgov.artifact.dequantize import matrices
from mlflow_quantgov.artifact.derivation import compare
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors

Writer = Callable[[dict[str, Any], dict[str, Any]], Path]
NAME = "model.layers.0.mlp.experts.up_proj"
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.fixture
def folder(tmp_path: Path) -> Writer:
    """Writes torch tensors and a quantization config."""
    from safetensors.torch import save_file

    def write(tensors: dict[str, Any], claim: dict[str, Any]) -> Path:
        save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": claim}))
        return tmp_path

    return write


def transformers_numbers(codes: Any, scales: Any) -> np.ndarray[Any, Any]:
    """What transformers' own operation makes of float8 or packed float4 codes."""
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    operation = Fp8Dequantize(SimpleNamespace(quantization_config=None))
    found: np.ndarray[Any, Any] = operation._dequantize_one(codes, scales, torch.float32).numpy()
    return found


def random_codes(*shape: int) -> Any:
    """Float8 codes of random weights."""
    import torch

    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100
    return weights.clamp(-448, 448).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_blocks_by_transformers(artifacts: Path, projection: str) -> None:
    from safetensors.torch import load_file

    name = f"model.layers.0.{projection}.weight"
    tensors = load_file(artifacts / "fp8-block" / "model.safetensors")
    expected = transformers_numbers(tensors[name], tensors[f"{name}_scale_inv"])
    assert np.array_equal(whole(matrices(artifacts / "fp8-block")[name]).values, expected)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_one_scale_for_all(artifacts: Path, projection: str) -> None:
    from safetensors.torch import load_file

    name = f"model.layers.0.{projection}.weight"
    tensors = load_file(artifacts / "modelopt-fp8-kv" / "model.safetensors")
    expected = (tensors[name].float() * tensors[f"{name}_scale"]).numpy()
    found = matrices(artifacts / "modelopt-fp8-kv")[name]
    assert np.array_equal(whole(found).values, expected)
    # modelopt divides by this scale in bfloat16.
    assert found.slack == 2.0**-8


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_nvfp4_by_ml_dtypes(artifacts: Path, projection: str) -> None:
    from safetensors.torch import load_file

    name = f"model.layers.0.{projection}.weight"
    tensors = load_file(artifacts / "modelopt-nvfp4" / "model.safetensors")
    codes = tensors[name].numpy()
    pairs = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1, 16)
    scales = tensors[f"{name}_scale"].float().numpy() * tensors[f"{name}_scale_2"].numpy()
    expected = pairs.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * scales[..., None]
    found = whole(matrices(artifacts / "modelopt-nvfp4")[name]).values
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((12, 40), (1, 1)), ((12, 40), (12, 1)), ((12, 40), (1, 40)), ((64, 96), (2, 3)), ((64, 96), (64, 3)),
        ((3, 32, 64), (3, 1, 1)), ((3, 32, 64), (3, 32, 1)), ((3, 32, 64), (3, 1, 64)), ((3, 32, 64), (3, 2, 4)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float8_e8m0fnu"])
def test_any_granularity_by_transformers(folder: Writer, shape: Any, scales: Any, kind: str) -> None:
    import torch

    codes = random_codes(*shape)
    scale = torch.rand(scales, generator=torch.Generator().manual_seed(2)) + 0.1
    scale = scale.to(getattr(torch, kind))
    path = folder({NAME: codes, f"{NAME}_scale_inv": scale}, {"quant_method": "fp8"})
    found = matrices(path)[NAME]
    assert found.shape == shape
    expected = transformers_numbers(codes, scale.float()).reshape(-1, shape[-1])
    assert np.array_equal(whole(found).values, expected)


def test_blocks_that_do_not_divide_the_matrix(folder: Writer) -> None:
    import torch

    codes = random_codes(70, 50)
    scale = torch.rand(3, 2, generator=torch.Generator().manual_seed(2)) + 0.1
    claim = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    path = folder({f"{NAME}.weight": codes, f"{NAME}.weight_scale_inv": scale}, claim)
    spread = np.repeat(np.repeat(scale.numpy(), 32, axis=0), 32, axis=1)[:70, :50]
    assert np.array_equal(whole(matrices(path)[f"{NAME}.weight"]).values, codes.float().numpy() * spread)


@pytest.mark.parametrize("stack", [1, 3])
def test_packed_float4_and_its_scales(folder: Writer, stack: int) -> None:
    import torch

    random = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 256, (stack, 8, 32), dtype=torch.uint8, generator=random)
    scale = torch.rand(stack, 8, 4, generator=random).to(torch.float8_e4m3fn)
    second, before = torch.rand(stack, generator=random), torch.rand(64, generator=random) + 0.5
    expected = (
        transformers_numbers(codes.view(torch.int8), scale.float()).reshape(stack, 8, 64)
        * second.numpy()[:, None, None]
    )
    if stack == 1:
        # One matrix, whose input is multiplied before it.
        stem = "model.layers.0.mlp.up_proj"
        tensors = {f"{stem}.weight": codes[0], f"{stem}.weight_scale": scale[0], f"{stem}.weight_scale_2": second[0],
                   f"{stem}.pre_quant_scale": before}  # fmt: skip
        expected, name = expected[0] * before.numpy(), f"{stem}.weight"
    else:
        tensors = {f"{NAME}.weight": codes, f"{NAME}.weight_scale": scale, f"{NAME}.weight_scale_2": second}
        name = f"{NAME}.weight"
    found = matrices(folder(tensors, {"quant_method": "modelopt", "quant_algo": "NVFP4"}))
    assert set(found) == {name}
    np.testing.assert_allclose(whole(found[name]).values, expected.reshape(-1, 64), rtol=1e-6)


def test_exponents_in_bytes(folder: Writer) -> None:
    import torch

    codes, powers = random_codes(8, 64), torch.arange(120, 136, dtype=torch.uint8).reshape(8, 2)
    path = folder({f"{NAME}.weight": codes, f"{NAME}.weight_scale": powers}, {"quant_method": "mxfp8"})
    assert np.array_equal(whole(matrices(path)[f"{NAME}.weight"]).values, transformers_numbers(codes, powers))


@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
def test_mxfp4_by_transformers(artifacts: Path, part: str) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    name = f"model.layers.0.mlp.experts.{part}"
    tensors = load_file(artifacts / "mxfp4-gpt-oss" / "model.safetensors")
    expected = convert_moe_packed_tensors(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype=torch.float32)
    found = matrices(artifacts / "mxfp4-gpt-oss")[name]
    assert found.shape == tuple(expected.shape)
    assert np.array_equal(whole(found).values, expected.numpy().reshape(found.rows, found.columns))
    # Blocks of rows need not begin where groups do, nor end within one expert.
    assert np.array_equal(found.read(5, found.rows - 7).values, whole(found).values[5:-7])


def test_experts_lie_as_the_parents_do(artifacts: Path, tmp_path: Path) -> None:
    """The true parent fits; one whose experts are swapped, or whose matrices are turned, does not."""
    source = artifacts / "gpt-oss-parent"
    assert compare(artifacts / "mxfp4-gpt-oss", source).verdict == "proved"
    weights = {key: np.array(one, dtype=np.float32) for key, one in read_safetensors(source / "model.safetensors")}
    for change in ("swapped", "turned"):
        moved = dict(weights)
        for key in (one for one in weights if one.endswith(("gate_up_proj", "down_proj"))):
            one = weights[key]
            turned = np.ascontiguousarray(one.transpose(0, 2, 1)).reshape(one.shape)
            moved[key] = np.ascontiguousarray(one[::-1]) if change == "swapped" else turned
        (tmp_path / change).mkdir()
        write_safetensors(tmp_path / change / "model.safetensors", moved)
        (tmp_path / change / "config.json").write_bytes((source / "config.json").read_bytes())
        assert compare(artifacts / "mxfp4-gpt-oss", tmp_path / change).verdict == "refuted"
