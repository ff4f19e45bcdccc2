"""GPTQ by gptqmodel."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
        """Quantize layer by layer on the texts, in their order.

        The library leaves a folder `logs` where the process runs, so it runs in one that goes afterwards.
        """
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        parent, target = parent.absolute(), target.absolute()
        with quiet(), tempfile.TemporaryDirectory() as workplace, contextlib.chdir(workplace):
            library = require("gptqmodel", extra=self.extra, purpose=PURPOSE)
            options = dict(arguments)
            batch = options.pop("batch_size", 1)
            model = library.GPTQModel.load(str(parent), library.QuantizeConfig(**options))
            model.quantize(list(texts), batch_size=batch)
            model.save(str(target))
        return target
