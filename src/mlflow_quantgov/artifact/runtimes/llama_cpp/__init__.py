"""llama.cpp through PyPI's `xllamacpp` or `llama-cpp-python`: no build, no torch; tokens, logits, scores, answers and timing of one model."""

from __future__ import annotations

from mlflow_quantgov.artifact.runtimes.llama_cpp.adapter import LlamaCppAdapter
from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import QuantizedFile, quantize_gguf
from mlflow_quantgov.artifact.runtimes.llama_cpp.runtime import LlamaRuntime
from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import Twin, TwinProof, gguf_twin, prove_twin

__all__ = [
    "LlamaCppAdapter",
    "LlamaRuntime",
    "QuantizedFile",
    "Twin",
    "TwinProof",
    "gguf_twin",
    "prove_twin",
    "quantize_gguf",
]
