"""Bounded, safe readers of tensor containers: headers first, payloads only on request."""

from mlflow_quantgov.artifact.tensors.gguf import GgufArray, GgufFile, read_gguf
from mlflow_quantgov.artifact.tensors.onnx import OnnxFile, read_onnx
from mlflow_quantgov.artifact.tensors.safetensors import (
    SafetensorsFile,
    open_safetensors,
    read_safetensors,
    write_safetensors,
)
from mlflow_quantgov.artifact.tensors.types import FLOATS, Tensor

__all__ = [
    "FLOATS",
    "GgufArray",
    "GgufFile",
    "OnnxFile",
    "SafetensorsFile",
    "Tensor",
    "open_safetensors",
    "read_gguf",
    "read_onnx",
    "read_safetensors",
    "write_safetensors",
]
