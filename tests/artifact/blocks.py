"""What several tests of dequantizers share: all of a matrix, and the parent's weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.dequantize import Block, Matrix
from mlflow_quantgov.artifact.tensors import read_safetensors

PROJECTIONS = [f"self_attn.{one}_proj" for one in "qkvo"] + [f"mlp.{one}_proj" for one in ("gate", "up", "down")]


def whole(matrix: Matrix) -> Block:
    """All rows, read in three uneven blocks."""
    cuts = sorted({0, matrix.rows // 3, matrix.rows // 3 + 1, matrix.rows})
    parts = [matrix.read(start, stop) for start, stop in pairwise(cuts) if stop > start]

    def joined(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate([np.broadcast_to(one, parts[i].values.shape)
                                                             for i, one in enumerate(found)])  # fmt: skip

    return Block(joined("values"), joined("below"), joined("above"), joined("blur"))


def parent_weight(artifacts: Path, name: str) -> np.ndarray[Any, Any]:
    """One of the parent's matrices as float32."""
    return np.array(dict(read_safetensors(artifacts / "parent-bf16" / "model.safetensors"))[name], dtype=np.float32)
