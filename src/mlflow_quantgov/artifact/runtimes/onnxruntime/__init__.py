"""ONNX decoders in onnxruntime: folders of onnxruntime-genai, and plain exports with past keys and values."""

from __future__ import annotations

from mlflow_quantgov.artifact.runtimes.onnxruntime.adapter import OnnxRuntimeAdapter
from mlflow_quantgov.artifact.runtimes.onnxruntime.runtime import OnnxRuntime
from mlflow_quantgov.artifact.runtimes.onnxruntime.twin import onnx_twin
from mlflow_quantgov.artifact.runtimes.onnxruntime.twin_proof import OnnxTwin, prove_twin

__all__ = ["OnnxRuntime", "OnnxRuntimeAdapter", "OnnxTwin", "onnx_twin", "prove_twin"]
