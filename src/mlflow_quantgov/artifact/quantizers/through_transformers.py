"""bitsandbytes and torchao, as transformers calls them while it loads a model."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.artifact.objects import save_object
from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer
from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.errors import UsageError, require, short

PURPOSE = "quantize a model as the recipe says"
_GRANULARITY = re.compile(r"(PerRow|PerTensor|PerToken|PerAxis|PerGroup)\((\d*)\)")


class _ThroughTransformers(Quantizer):
    """Loads with a quantization config, and saves."""

    extra = "transformers"

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Load the parent with the quantization, and save what is then in memory."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        options = dict(arguments)
        dtype = options.pop("dtype", "auto")
        # Their imports talk too: torchao names every library of its own that does not load on this machine.
        with quiet():
            torch = require("torch", extra="transformers", purpose=PURPOSE)
            transformers = require("transformers", extra="transformers", purpose=PURPOSE)
            config = self._config(torch, transformers, options)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                parent,
                dtype=dtype if dtype == "auto" else _torch_type(torch, dtype),
                quantization_config=config,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                device_map="cpu",
            )
            save_object(model, target)
        return target

    @abstractmethod
    def _config(self, torch: Any, transformers: Any, options: Mapping[str, Any]) -> Any:
        """The quantization config of transformers."""


class BitsAndBytes(_ThroughTransformers):
    """Arguments as `BitsAndBytesConfig` names them, and `dtype` of what is not quantized."""

    name = "bitsandbytes"
    distribution = "bitsandbytes"
    libraries = ("torch", "transformers")
    arguments: ClassVar[Arguments] = {
        "load_in_4bit": bool,
        "load_in_8bit": bool,
        "bnb_4bit_quant_type": str,
        "bnb_4bit_use_double_quant": bool,
        "bnb_4bit_compute_dtype": str,
        "bnb_4bit_quant_storage": str,
        "llm_int8_threshold": (int, float),
        "llm_int8_skip_modules": list,
        "dtype": str,
    }

    def _config(self, torch: Any, transformers: Any, options: Mapping[str, Any]) -> Any:
        return transformers.BitsAndBytesConfig(**options)


class TorchAo(_ThroughTransformers):
    """`config` names a class of torchao.quantization, `options` are its arguments; `dtype` and `skip_modules` as usual."""

    name = "torchao"
    distribution = "torchao"
    libraries = ("torch", "transformers")
    arguments: ClassVar[Arguments] = {
        "config": str,
        "options": dict,
        "skip_modules": list,
        "dtype": str,
    }

    def _config(self, torch: Any, transformers: Any, options: Mapping[str, Any]) -> Any:
        module = require("torchao.quantization", extra="transformers", purpose=PURPOSE)
        base = require("torchao.core.config", extra="transformers", purpose=PURPOSE).AOBaseConfig
        name = options.get("config", "")
        found = getattr(module, name, None)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise self._wrong(f"torchao.quantization has no configuration {short(name)}")
        try:
            values = {key: _value(torch, module, value) for key, value in options.get("options", {}).items()}
            config = found(**values)
        except (TypeError, ValueError, AssertionError) as error:
            raise self._wrong(f"{name} refuses its options: {str(error)[:200]}") from error
        return transformers.TorchAoConfig(config, modules_to_not_convert=options.get("skip_modules"))


def _value(torch: Any, module: Any, value: Any) -> Any:
    """An option as torchao wants it: `torch.int8` is a type, `PerGroup(32)` a granularity."""
    if not isinstance(value, str):
        return value
    if value.startswith("torch."):
        return _torch_type(torch, value.removeprefix("torch."))
    found = _GRANULARITY.fullmatch(value)
    return getattr(module, found[1])(*([int(found[2])] if found[2] else [])) if found else value


def _torch_type(torch: Any, name: str) -> Any:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise UsageError(
            f"torch has no type {short(name)}.",
            why="The recipe cannot be run.",
            fix="name one such as bfloat16 or float32",
        )
    return found
