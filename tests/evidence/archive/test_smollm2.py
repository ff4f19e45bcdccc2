"""The archive of a real parent: SmolLM2-135M-Instruct in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.demo.models.smollm2 import write_parent
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.measure.archive import archive
from mlflow_quantgov.evidence.measure.drill import drill


@pytest.mark.slow
def test_smollm2_takes_half_of_its_bytes_a_second_version_what_is_new_and_both_answer(tmp_path: Path) -> None:
    """zstd -19 makes 179 MB of it, in minutes (docs/explanation/archive.md); here level 3 is compared, and the share."""
    try:
        parent, store = write_parent(tmp_path / "parent"), str(tmp_path / "a")
    except QuantgovError as error:
        pytest.skip(str(error))
    manifest = build_manifest(parent)
    first = archive(parent, manifest, store)
    weights = (parent / "model.safetensors").read_bytes()
    assert first.stored_bytes < 0.5 * manifest.total_size
    assert first.stored_bytes < 0.7 * len(zstandard.compress(weights, 3))
    found = drill(manifest.digest, store, runtime="llama.cpp", prompt="The capital of France is", original=parent)
    assert (found.stated()["outcome"], found.reproduced) == ("pass", "original")

    tuned = open_safetensors(parent / "model.safetensors").tensors["model.layers.29.mlp.down_proj.weight"]
    noise = np.random.default_rng(0).integers(0, 2, tuned.size // 2).astype(np.uint16)
    new = (np.frombuffer(weights, dtype=np.uint16, offset=tuned.offset, count=tuned.size // 2) ^ noise).tobytes()
    (parent / "model.safetensors").write_bytes(weights[: tuned.offset] + new + weights[tuned.offset + tuned.size :])
    second = archive(parent, build_manifest(parent), store)
    assert (second.new_pieces, second.new_bytes) == (1, tuned.size)
    assert second.stored_bytes < 0.01 * first.stored_bytes + 1_000_000
