"""Bounded, safe readers of tensor containers: headers first, payloads only on request."""

from mlflow_quantgov.artifact.tensors.gguf import GgufArray, GgufFile, read_gguf
from mlflow_quantgov.artifact.tensors.onnx import OnnxFile, read_onnx
from mlflow_quantgov.artifact.tensors.openvino import OpenVinoFile, read_openvino
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
    "OpenVinoFile",
    "SafetensorsFile",
    "Tensor",
    "open_safetensors",
    "read_gguf",
    "read_onnx",
    "read_openvino",
    "read_safetensors",
    "write_safetensors",
]
