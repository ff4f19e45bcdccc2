"""Quantizers that write computation graphs: onnxruntime, onnxruntime-genai, nncf. Each has its row where it is there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Quantizer = Callable[[Path, Path], Path]


def quantizers() -> dict[str, Quantizer]:
    """By label: takes a full-precision folder and a place to write to."""
    found: dict[str, Quantizer] = {}
    if _is_there("onnxruntime_genai", "onnx_ir"):
        found["ONNX MatMulNBits 4 bit, blocks of 32"] = by_builder
    if _is_there("onnxruntime", "onnx", "torch"):
        found["ONNX MatMulNBits 4 bit, blocks of 32, zero points"] = by_blocks
        found["ONNX dynamic int8"] = by_dynamic
    if _is_there("nncf", "openvino", "torch"):
        found["OpenVINO int4, groups of 64"] = by_nncf
    return found


def _is_there(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def by_builder(source: Path, target: Path) -> Path:
    """The builder of onnxruntime-genai, as its command line runs it."""
    subprocess.run(
        [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", source, "-o", target, "-p", "int4", "-e", "cpu",
         "-c", target.with_suffix(".cache"), "--extra_options", "int4_block_size=32"],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


def by_blocks(source: Path, target: Path) -> Path:
    """Blocks of an exported graph, asymmetric, by onnxruntime."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False)
    quantizer = MatMulNBitsQuantizer(onnx.load(_exported(source)), algo_config=config)
    quantizer.process()
    target.mkdir()
    quantizer.model.save_model_to_file(str(target / "model.onnx"), False)
    return target


def by_dynamic(source: Path, target: Path) -> Path:
    """Dynamic quantization of an exported graph, by onnxruntime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target.mkdir()
    quantize_dynamic(_exported(source), target / "model.onnx", weight_type=QuantType.QInt8)
    return target


def by_nncf(source: Path, target: Path) -> Path:
    """Compression of weights, symmetric, by nncf."""
    import nncf
    import openvino

    model, inputs = _traced(source)
    graph = openvino.convert_model(model, example_input=inputs)
    mode = nncf.CompressWeightsMode.INT4_SYM
    found = nncf.compress_weights(graph, mode=mode, group_size=64, ratio=1.0, all_layers=True)
    target.mkdir()
    openvino.save_model(found, target / "openvino_model.xml", compress_to_fp16=True)
    return target


def _exported(source: Path) -> Path:
    """The model as a float32 graph, by torch's tracing exporter; once for all that quantize it."""
    import torch

    path = source.parent.parent / "graphs" / f"{source.name}.onnx"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        model, inputs = _traced(source)
        torch.onnx.export(
            model, tuple(inputs.values()), path, dynamo=False, opset_version=17, input_names=list(inputs),
            output_names=["logits"], dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*inputs, "logits")},
        )  # fmt: skip
    return path


def _traced(source: Path) -> tuple[Any, dict[str, Any]]:
    """A model that takes tokens and a mask, and an example of both."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lm_head = model.model, model.lm_head

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return self.lm_head(found.last_hidden_state)

    return Traced(), {name: torch.ones((1, 8), dtype=torch.long) for name in ("input_ids", "attention_mask")}
