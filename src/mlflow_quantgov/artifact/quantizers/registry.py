"""Finds a quantizer by name. Third parties add theirs through the entry-point group `mlflow_quantgov.quantizers`."""

from __future__ import annotations

from mlflow_quantgov.artifact.plugins import Plugins
from mlflow_quantgov.artifact.quantizers.interface import Quantizer

_HERE = "mlflow_quantgov.artifact.quantizers"
_QUANTIZERS = Plugins[Quantizer](
    kind="quantizer",
    base=Quantizer,  # type: ignore[type-abstract]  # compared with, never built
    group="mlflow_quantgov.quantizers",
    own={
        "bitsandbytes": f"{_HERE}.through_transformers:BitsAndBytes",
        "gptqmodel": f"{_HERE}.gptqmodel:GptqModel",
        "llama.cpp": f"{_HERE}.llama_cpp:LlamaCpp",
        "llmcompressor": f"{_HERE}.llmcompressor:LlmCompressor",
        "onnxruntime-genai": f"{_HERE}.onnxruntime_genai:OnnxRuntimeGenai",
        "torchao": f"{_HERE}.through_transformers:TorchAo",
    },
    without="Only a quantizer that can be run here can show that a recipe gives the same bytes.",
)


def quantizer_names() -> list[str]:
    """Names of all quantizers that recipes may name."""
    return _QUANTIZERS.names()


def find_quantizer(name: str) -> Quantizer:
    """The quantizer that a recipe names.

    Raises:
        UsageError: None has that name, or its entry point does not load.
    """
    return _QUANTIZERS.find(name, "name one of {names} in the recipe")
