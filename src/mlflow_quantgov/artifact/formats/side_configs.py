"""Two configs of one artifact must say the same: which of them a loader reads hangs on the loader.

transformers and vLLM take the one in config.json first, gptqmodel, AutoGPTQ and AutoAWQ the file of their own.
"""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.errors import ArtifactError, short

_ALIASES = {
    "bits": ("bits", "w_bit"), "group_size": ("group_size", "q_group_size"), "method": ("quant_method", "method"),
    "checkpoint format": ("checkpoint_format", "format"), "sym": ("sym",), "desc_act": ("desc_act",),
    "zero_point": ("zero_point",), "version": ("version",), "packing_format": ("packing_format",), "dynamic": ("dynamic",),
    "modules_to_not_convert": ("modules_to_not_convert",), "pack_dtype": ("pack_dtype",),
}  # fmt: skip
"""What decides how the tensors are read, and the keys that say it."""
_GPTQ_FIRST = "gptq"
"""The checkpoint format of GPTQ where none is named."""


def check_agreement(files: ArtifactFiles) -> None:
    """Compare what the configs of an artifact say about its quantization.

    Raises:
        ArtifactError: Two of them contradict each other.
    """
    read = [(place, _settings(claim)) for place, claim in files.claims]
    gptq = any(one.get("method") == "gptq" for _, one in read)
    for other, theirs in read[1:]:
        place, mine = read[0]
        for key in _ALIASES:
            first, second = mine.get(key), theirs.get(key)
            if key == "checkpoint format" and gptq:
                first, second = first or _GPTQ_FIRST, second or _GPTQ_FIRST
            if first is not None and second is not None and first != second:
                raise ArtifactError(
                    f"{place} of {files.root.name} says {key} {short(first)}, {other} says {short(second)}.",
                    why="Some loaders read the one file and some the other, and would compute different weights.",
                    fix="correct the file that is wrong, or quantize it again",
                )


def _settings(claim: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for label, keys in _ALIASES.items():
        value = next((claim[key] for key in keys if claim.get(key) is not None), None)
        if isinstance(value, str):
            value = value.lower()
        if label == "group_size" and isinstance(value, int):
            value = max(value, 0)
        found[label] = value if value not in ([], {}) else None
    return found
