"""GPTQ, as AutoGPTQ and gptqmodel write it: `qweight`, `qzeros`, `scales`, `g_idx` per linear layer."""

from __future__ import annotations

import numpy as np

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format, Layers, assemble
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.tensors.safetensors import values
from mlflow_quantgov.errors import ArtifactError

WORD = 32
_SAMPLED_LAYERS = 4


class Gptq(Format):
    """`qweight` is [in * bits / 32, out], packed along the input; `qzeros` [groups, out * bits / 32]."""

    name = "gptq"

    def detect(self, files: ArtifactFiles) -> bool:
        """A packed matrix with an input-packed shape."""
        return files.claimed_method in {None, "gptq"} and any(
            name.endswith(".qweight") and name.replace(".qweight", ".g_idx") in files.tensors for name in files.tensors
        )

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        layers, act_order = Layers(), []
        for name in sorted(files.tensors):
            if name.endswith(".qweight"):
                layers.add(*self._layer(files, name.removesuffix(".qweight")))
        for layer in layers.found[:_SAMPLED_LAYERS]:
            index = values(files.tensors[f"{layer.name}.g_idx"])
            act_order.append(bool(np.any(np.diff(index) < 0)))
        config = files.quantization_config
        dynamic = bool(config.get("dynamic"))
        return assemble(
            files,
            layers,
            format="gptq",
            method="gptq",
            symmetric=self._symmetric(files, layers),
            producer=_producer(files),
            calibration_required=True,
            desc_act=any(act_order),
            claimed_bits=None if dynamic else config.get("bits"),
        )

    def _layer(self, files: ArtifactFiles, stem: str) -> tuple[LayerQuantization, str, str, str, str]:
        names = tuple(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
        try:
            weight, zeros, scales, index = (files.tensors[name] for name in names)
            out_features, in_features = scales.shape[1], index.shape[0]
            bits, rest = divmod(zeros.shape[1] * WORD, out_features)
            if weight.shape != (in_features * bits / WORD, out_features) or rest or bits not in {2, 3, 4, 8}:
                raise IndexError
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise ArtifactError(
                f"The layer {stem} of {files.root.name} is no sound GPTQ layer: its tensors contradict each other.",
                why="Width and group size are read from the shapes of qweight, qzeros, scales and g_idx.",
                fix="quantize it again with gptqmodel",
            ) from error
        groups = scales.shape[0]
        group_size = None if groups == 1 else -(-in_features // groups)
        layer = LayerQuantization(stem, bits, group_size, (out_features, in_features), "gptq")
        return layer, *names  # type: ignore[return-value]

    def _symmetric(self, files: ArtifactFiles, layers: Layers) -> bool:
        """Symmetric where every zero point is the middle of the range (v1 stores it minus one)."""
        for layer in layers.found[:_SAMPLED_LAYERS]:
            bits = int(layer.bits)
            words = values(files.tensors[f"{layer.name}.qzeros"]).view(np.uint32)
            if bits == 3:
                # Ten codes and two halves per word: compare with what a constant zero point packs to.
                if len(np.unique(words)) > 3:
                    return False
                continue
            codes = np.unique((words[..., None] >> np.arange(0, WORD, bits, dtype=np.uint32)) & np.uint32(2**bits - 1))
            if not set(codes.tolist()) <= {2 ** (bits - 1) - 1} and not set(codes.tolist()) <= {2 ** (bits - 1)}:
                return False
        return True


def _producer(files: ArtifactFiles) -> str | None:
    config = files.quantization_config
    quantizer = (config.get("meta") or {}).get("quantizer")
    found = quantizer[0] if isinstance(quantizer, list) and quantizer else quantizer or config.get("quantizer")
    return str(found).replace(":", " ") if found else None
