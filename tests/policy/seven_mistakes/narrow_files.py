"""Files of llama.cpp below four bit, quantized by its own quantizer from a small model and from its trained checkpoint."""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import descent_parents as parents
import descent_quantizers as make

from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

SKILLS = Path(__file__).parents[3] / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"


def original(_: Path) -> Path:
    """The full-precision model."""
    return SKILLS


@cache
def _checkpoint() -> Path:
    """It after training: every matrix moved by a twentieth of its norm, norms too."""
    folder = Path(tempfile.mkdtemp(prefix="trained-")) / "trained"
    shutil.copytree(SKILLS, folder)
    weights, config = make.load(SKILLS)
    moved = parents.changed(weights, 0.05)
    moved = {name: one * np.float32(1.01) if name.endswith("norm.weight") else one for name, one in moved.items()}
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    make.save(folder, moved, config | {"dtype": "float32"})
    return folder


def checkpoint(_: Path) -> Path:
    """The trained full-precision weights."""
    return _checkpoint()


@cache
def gguf(kind: str, trained: bool = False, output: str | None = None) -> Path:
    """A GGUF of the model, or of its checkpoint."""
    folder = Path(tempfile.mkdtemp(prefix="gguf-"))
    twin = gguf_twin(_checkpoint() if trained else SKILLS, folder).path
    return quantize_gguf(twin, folder / f"skills-{kind}.gguf", kind, output_type=output).path
