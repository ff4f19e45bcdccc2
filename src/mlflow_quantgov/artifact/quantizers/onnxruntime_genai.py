"""The model builder of onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer

DEFAULT_PRECISION = "int4"
_OPTIONS = {"int4_block_size": int, "int4_is_symmetric": bool, "int4_accuracy_level": int, "int4_algo_config": str}


class OnnxRuntimeGenai(Quantizer):
    """`python -m onnxruntime_genai.models.builder` for the CPU."""

    name = "onnxruntime-genai"
    distribution = "onnxruntime-genai"
    extra = "onnx"
    libraries = ("onnxruntime", "onnx-ir", "onnx", "torch", "transformers")
    arguments: ClassVar[Arguments] = {"precision": str, **_OPTIONS}

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Run the builder in a process of its own."""
        from mlflow_quantgov.artifact.runtimes.onnxruntime.builder import build

        options = {name: str(value).lower() for name, value in arguments.items() if name in _OPTIONS}
        build(parent, target, arguments.get("precision", DEFAULT_PRECISION), options)
        return target
