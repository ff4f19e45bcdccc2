"""bitsandbytes: int8 with row scales, nf4 and fp4 with (perhaps nested) block scales."""

from __future__ import annotations

import json
import re

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, Layers, assemble
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.errors import ArtifactError

_STATE = re.compile(r"^(?P<weight>.+\.weight)\.quant_state\.bitsandbytes__(?P<kind>nf4|fp4)$")
MAX_STATE_BYTES = 100_000


class BitsAndBytes(Format):
    """The quantization state lies beside each matrix, as a small JSON in a byte tensor."""

    name = "bitsandbytes"

    def detect(self, files: ArtifactFiles) -> bool:
        """A quantization state, or int8 row scales."""
        return any(_STATE.match(name) or name.endswith(".SCB") for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, kinds = Layers(), set()
        for name in sorted(files.tensors):
            if found := _STATE.match(name):
                kinds.add(found["kind"])
                layers.add(*self._four_bit(files, name, found["weight"], found["kind"]))
            elif name.endswith(".SCB"):
                kinds.add("int8")
                layers.add(*self._eight_bit(files, name.removesuffix(".SCB")))
        config = files.quantization_config
        claimed = 4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else None
        return assemble(
            files,
            layers,
            format="bitsandbytes",
            method="-".join(sorted(kinds)),
            symmetric=True,
            producer=None,
            calibration_required=False,
            activation_bits=8 if kinds == {"int8"} else None,
            claimed_bits=claimed,
        )

    def _four_bit(self, files: ArtifactFiles, state: str, weight: str, kind: str) -> tuple[LayerQuantization, ...]:
        try:
            text = files.tensors[state].raw(MAX_STATE_BYTES).tobytes()
            facts = json.loads(text)
            shape, block = tuple(int(side) for side in facts["shape"]), int(facts["blocksize"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _bad(files, weight) from error
        stored = files.tensors.get(weight)
        if stored is None or len(shape) != 2 or shape[0] * shape[1] != stored.size * 2 or block <= 0:
            raise _bad(files, weight)
        parts = [name for name in files.tensors if name == weight or name.startswith(f"{weight}.")]
        return (LayerQuantization(weight.removesuffix(".weight"), 4, block, shape, kind), *parts)  # type: ignore[return-value]

    def _eight_bit(self, files: ArtifactFiles, stem: str) -> tuple[LayerQuantization, ...]:
        weight = files.tensors.get(f"{stem}.weight")
        if weight is None or weight.dtype != "I8" or len(weight.shape) != 2:
            raise _bad(files, f"{stem}.weight")
        parts = [name for name in (f"{stem}.weight", f"{stem}.SCB", f"{stem}.weight_format") if name in files.tensors]
        return (LayerQuantization(stem, 8, None, weight.shape, "int8"), *parts)  # type: ignore[return-value]


def _bad(files: ArtifactFiles, weight: str) -> ArtifactError:
    return ArtifactError(
        f"The matrix {weight} of {files.root.name} does not fit its bitsandbytes quantization state.",
        why="Width, block size and shape are read from both.",
        fix="quantize it again with bitsandbytes",
    )
