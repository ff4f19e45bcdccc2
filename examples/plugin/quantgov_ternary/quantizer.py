"""Makes ternary artifacts, so that a recorded recipe can be run again."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from mlflow_quantgov.artifact.quantizers.interface import Arguments, Quantizer


class TernaryQuantizer(Quantizer):
    """Rounds every row to -1, 0 and 1 times its largest weight."""

    name = "ternary"
    distribution = "quantgov-ternary"
    extra = "the package quantgov-ternary"
    libraries = ("numpy",)
    arguments: ClassVar[Arguments] = {"threshold": float}

    def run(self, parent: Path, target: Path, arguments: Mapping[str, Any], texts: Sequence[str]) -> Path:
        """Write the trits of every matrix, and the parent's config."""
        threshold = arguments.get("threshold", 0.5)
        tensors = {}
        for name, weight in load_file(parent / "model.safetensors").items():
            scale = np.abs(weight).max(axis=1)
            share = weight / scale[:, None]
            stem = name.removesuffix(".weight")
            tensors[f"{stem}.trits"] = (np.sign(share) * (np.abs(share) >= threshold)).astype(np.int8)
            tensors[f"{stem}.scale"] = scale
        save_file(tensors, target / "model.safetensors")
        shutil.copy(parent / "config.json", target)
        return target
