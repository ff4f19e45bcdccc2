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
    claims = list(files.claims)
    gptq = any(_said("quant_method", claim.get("quant_method", claim.get("method"))) == "gptq" for _, claim in claims)
    for label, keys in _ALIASES.items():
        first: tuple[str, Any] | None = None
        for place, claim in claims:
            said = [value for key in keys if (value := _said(label, claim.get(key))) is not None]
            if not said and label == "checkpoint format" and gptq:
                said = [_GPTQ_FIRST]
            for value in said:
                first = first or (place, value)
                if value != first[1]:
                    raise ArtifactError(
                        f"{first[0]} of {files.root.name} says {label} {short(first[1])}, {place} says {short(value)}.",
                        why="Some loaders read the one and some the other, and would compute different weights.",
                        fix="correct the one that is wrong, or quantize it again",
                    )


def _said(label: str, value: Any) -> Any:
    """A value as all tools spell it; None where nothing is said."""
    if isinstance(value, str):
        return value.lower()
    if label == "group_size" and isinstance(value, int):
        return max(value, 0)
    return value if value not in ([], {}) else None
