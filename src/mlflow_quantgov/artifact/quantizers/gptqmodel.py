"""GPTQ by gptqmodel."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer
from mlflow_quantgov.artifact.quiet import quiet
from mlflow_quantgov.errors import require

PURPOSE = "quantize with GPTQ"


class GptqModel(Quantizer):
    """Arguments as `QuantizeConfig` names them, and `batch_size`."""

    name = "gptqmodel"
    distribution = "gptqmodel"
    extra = "gptq"
    libraries = ("torch", "transformers", "optimum")
    needs_texts = True
    arguments: ClassVar[Arguments] = {
        "bits": int,
        "group_size": int,
        "desc_act": bool,
        "sym": bool,
        "damp_percent": (int, float),
        "static_groups": bool,
        "dynamic": dict,
        "lm_head": bool,
        "format": str,
        "batch_size": int,
    }

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Quantize layer by layer on the texts, in their order."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with quiet():
            library = require("gptqmodel", extra=self.extra, purpose=PURPOSE)
            options = dict(arguments)
            batch = options.pop("batch_size", 1)
            model = library.GPTQModel.load(str(parent), library.QuantizeConfig(**options))
            model.quantize(list(texts), batch_size=batch)
            model.save(str(target))
        return target
