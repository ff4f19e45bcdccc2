"""llama.cpp's own quantizer, tensor by tensor, as `runtimes/llama_cpp/quantize.py` calls it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer
from mlflow_quantgov.errors import short

DEFAULT_TYPE = "Q8_0"
_SOURCES = ("auto", "BF16", "F16", "F32")


class LlamaCpp(Quantizer):
    """Plain file types: every matrix in one type, the output matrix in another."""

    name = "llama.cpp"
    distribution = "xllamacpp"
    extra = "gguf"
    libraries = ("gguf", "numpy")
    arguments: ClassVar[Arguments] = {"type": str, "output_type": str, "source_type": str}

    def check(self, arguments: Mapping[str, Any], *, has_texts: bool) -> None:
        """See `Quantizer`; the type in which the parent is held is one of three."""
        super().check(arguments, has_texts=has_texts)
        source = arguments.get("source_type", _SOURCES[0])
        if source not in _SOURCES:
            raise self._wrong(f"source_type = {short(source)} is none of {', '.join(_SOURCES)}")

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Quantize a GGUF file, or the lossless twin of a safetensors folder."""
        from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import quantize_gguf
        from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import gguf_twin

        kind = arguments.get("type", DEFAULT_TYPE)
        with tempfile.TemporaryDirectory(prefix="quantgov-twin-") as scratch:
            source = parent
            if parent.is_dir():
                source = gguf_twin(parent, Path(scratch), dtype=arguments.get("source_type", "auto")).path
            output = arguments.get("output_type")
            return quantize_gguf(source, target / f"model-{kind}.gguf", kind, output_type=output).path
