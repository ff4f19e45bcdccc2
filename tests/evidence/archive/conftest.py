"""A parent of a few megabytes, second versions of it, and what runs against an archive of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.tensors import write_safetensors

SIDE = 512


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Upper halves of float32 values."""
    return (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def weights(count: int = 6) -> dict[str, np.ndarray]:
    """Normally distributed, as trained weights nearly are."""
    random = np.random.default_rng(7)
    return {
        f"model.layers.{layer}.mlp.up_proj.weight": bfloat16(random.normal(0, 0.02, (SIDE, SIDE)))
        for layer in range(count)
    }


def write_model(folder: Path, tensors: dict[str, np.ndarray], *, shards: int = 1, note: str = "first") -> Path:
    """A folder of safetensors in so many shards."""
    folder.mkdir()
    names = sorted(tensors)
    for shard in range(shards):
        part = {name: tensors[name] for name in names[shard::shards]}
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / name, part, bf16=frozenset(part), metadata={"note": note})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "note": note}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The parent."""
    return write_model(tmp_path / "parent", weights())


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A parent that takes long enough to be interrupted."""
    return write_model(tmp_path / "large", weights(40))


@pytest.fixture
def versions(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a second version of the parent, of some kind."""

    def make(kind: str) -> Path:
        folder, tensors = tmp_path / kind, weights()
        if kind == "same":
            return write_model(folder, tensors)
        if kind == "other card":
            made = write_model(folder, tensors)
            (made / "README.md").write_text("# A model card\n")
            return made
        if kind == "longer header":
            return write_model(folder, tensors, note="second " * 50)
        if kind == "other shards":
            return write_model(folder, tensors, shards=3)
        assert kind == "one layer tuned"
        name = sorted(tensors)[-1]
        tensors[name] = bfloat16(np.random.default_rng(8).normal(0, 0.02, (SIDE, SIDE)))
        return write_model(folder, tensors)

    return make


@pytest.fixture
def archived_before(tmp_path: Path) -> Path:
    """A copy of an archive that an earlier version of this package wrote, of whole files."""
    source = Path(__file__).parents[2] / "data" / "archive-of-whole-files"
    return Path(shutil.copytree(source, tmp_path / "earlier"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB; skipped, loudly, where this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here ({made.stderr.strip()}). Fix: run the tests as root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
