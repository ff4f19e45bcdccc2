"""llm-compressor's modifiers: rounding, GPTQ, AWQ, SmoothQuant, in compressed-tensors' format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer
from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.errors import require, short

PURPOSE = "quantize with llm-compressor's modifiers"
_PLACES = (
    "quantization", "gptq", "awq", "smoothquant", "autoround", "transform.awq", "transform.smoothquant", "transform.quip",
    "transform.spinquant",
)  # fmt: skip


class LlmCompressor(Quantizer):
    """`modifiers` is a list of `{name: {argument: value}}`, as in llm-compressor's own recipes."""

    name = "llmcompressor"
    distribution = "llmcompressor"
    extra = "the package llmcompressor"
    libraries = ("torch", "transformers", "compressed-tensors")
    needs_texts = True
    arguments: ClassVar[Arguments] = {
        "modifiers": list,
        "max_seq_length": int,
        "dtype": str,
    }

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Apply the modifiers in one pass over the texts, in their order."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with quiet():
            library = require("llmcompressor", extra=self.extra, purpose=PURPOSE)
            datasets = require("datasets", extra="eval", purpose=PURPOSE)
            transformers = require("transformers", extra="transformers", purpose=PURPOSE)
            options = {"local_files_only": True, "trust_remote_code": False}
            dtype = arguments.get("dtype", "auto")
            model = transformers.AutoModelForCausalLM.from_pretrained(parent, dtype=dtype, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(parent, **options)
            library.oneshot(
                model=model,
                tokenizer=tokenizer,
                dataset=datasets.Dataset.from_dict({"text": list(texts)}),
                recipe=[self._modifier(one) for one in arguments.get("modifiers", [])],
                num_calibration_samples=len(texts),
                max_seq_length=arguments.get("max_seq_length", 512),
                shuffle_calibration_samples=False,
            )
            model.save_pretrained(target, save_compressed=True)
            tokenizer.save_pretrained(target)
        return target

    def _modifier(self, described: Any) -> Any:
        """One modifier by its name; nothing but llm-compressor's own classes is looked up."""
        if not (isinstance(described, Mapping) and len(described) == 1):
            raise self._wrong(f"a modifier is one name with its arguments, not {short(described)}")
        ((name, options),) = described.items()
        base = require("llmcompressor.modifiers", extra=self.extra, purpose=PURPOSE).Modifier
        for place in _PLACES:
            try:
                module = importlib.import_module(f"llmcompressor.modifiers.{place}")
            except ModuleNotFoundError:
                continue  # releases move them about
            found = getattr(module, str(name), None)
            if isinstance(found, type) and issubclass(found, base):
                return found(**(options or {}))
        raise self._wrong(f"llm-compressor has no modifier {short(str(name))}")
