"""A full-precision GGUF file in another type of float holds the same numbers, or is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter, gguf_twin
from mlflow_quantgov.artifact.runtimes.llama_cpp.file_twin import file_twin, stored_tensors
from mlflow_quantgov.errors import ArtifactError

QUANTIZED = Path(__file__).parents[2] / "data" / "artifacts" / "tiny-Q4_0.gguf"


@pytest.fixture
def parent(skills: Path, tmp_path: Path) -> Path:
    return gguf_twin(skills, tmp_path / "made").path


def test_a_twin_holds_every_number_and_says_the_same_of_itself(parent: Path, tmp_path: Path) -> None:
    wide = file_twin(parent, tmp_path / "cache", "F32")
    assert wide.proof.dtype == "F32" and wide.proof.differing == () and wide.path.parent == tmp_path / "cache"
    before, after = stored_tensors(parent), stored_tensors(wide.path)
    assert list(before) == list(after) and {one.dtype for one in after.values()} == {"F32"}
    assert all(np.array_equal(before[name].widened(), after[name].widened()) for name in before)
    narrow = file_twin(wide.path, tmp_path / "cache", "BF16")
    assert inspect(narrow.path).structure == inspect(parent).structure
    assert file_twin(parent, tmp_path / "cache", "F32").path == wide.path


def test_a_changed_twin_in_the_cache_is_not_believed(parent: Path, tmp_path: Path) -> None:
    twin = file_twin(parent, tmp_path / "cache", "F32").path
    content = bytearray(twin.read_bytes())
    content[-2] ^= 1
    twin.write_bytes(content)
    with pytest.raises(ArtifactError, match="differs in"):
        file_twin(parent, tmp_path / "cache", "F32")
    assert not twin.exists()


def test_what_a_type_does_not_hold_or_is_quantized_has_no_twin(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="F16 does not hold"):
        file_twin(parent, tmp_path / "cache", "F16")
    with pytest.raises(ArtifactError, match="quantized already"):
        file_twin(QUANTIZED, tmp_path / "cache", "F32")


def test_configurations_of_files(parent: Path) -> None:
    """A quantized file runs as it is stored alone."""
    found = {one.name: one.lossy for one in LlamaCppAdapter().configurations(parent)}
    assert list(found) == ["as stored", "F16 twin", "F32 twin"]
    assert found["F32 twin"] is None and "F16 does not" in str(found["F16 twin"])
    assert [one.name for one in LlamaCppAdapter().configurations(QUANTIZED)] == ["as stored"]
