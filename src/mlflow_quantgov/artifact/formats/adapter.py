"""Adapters (LoRA and others of PEFT): small matrices that mean nothing without the base model that they change.

`X.lora_A.weight` is [rank, in], `X.lora_B.weight` [out, rank]. Source: PEFT's LoraLayer and `save_pretrained`.
"""

from __future__ import annotations

import re

from mlflow_quantgov.artifact.formats.assemble import broken_layer, dtype_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.quantization import Inspection, Quantization, Structure
from mlflow_quantgov.errors import ArtifactError

CONFIG = "adapter_config.json"
NAME = "adapter"
_PAIR = re.compile(r"^(?P<module>.+)\.lora_A(?P<rest>\..+)?$")
_PARTS = re.compile(r"\.(lora_|ia3_|vera_|hada_|lokr_|oft_|boft_|prompt_|base_layer)|prompt_embeddings")
_QUANTIZED_NAME = re.compile(r"(?i)(bnb|gptq|awq|gguf|hqq|fp8|nf4|int[48]|[248]-?bit|w[248]a(8|16)|mxfp4|nvfp4)")


class Adapter(Format):
    """Reads rank and size; its base is named, and is another artifact."""

    name = NAME

    def detect(self, files: ArtifactFiles) -> bool:
        """An adapter's config, or a LoRA's tensors."""
        return bool(files.extra.get(CONFIG)) or any(".lora_A." in name or ".lora_B." in name for name in files.tensors)

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        foreign = next((name for name in files.tensors if not _PARTS.search(name)), None)
        if foreign is not None and len([name for name in files.tensors if _PARTS.search(name)]) == 0:
            raise _mixed(files, foreign)
        ranks = _ranks(files)
        kind = str(files.extra.get(CONFIG, {}).get("peft_type") or "lora").lower()[:40]
        total = sum(one.elements for one in files.tensors.values())
        version = files.extra.get(CONFIG, {}).get("peft_version")
        facts = Quantization(
            format=NAME,
            method=kind,
            bits=None,
            bits_per_weight=8 * sum(one.size for one in files.tensors.values()) / total if total else 0.0,
            group_size=None,
            granularity=None,
            symmetric=None,
            activation_bits=None,
            kv_cache_bits=None,
            desc_act=None,
            dtype=dtype_of(files.tensors),
            quantized_parameters=0,
            total_parameters=total,
            size_bytes=files.size_bytes,
            producer=f"peft {version}" if isinstance(version, str) else None,
            # What its base needed is not written in it.
            calibration_required=None,
            warnings=(*files.warnings, _described(files, kind, ranks)),
        )
        # Never "no language model": those pass the gate as they are.
        return Inspection(facts, Structure(architecture=None), is_language_model=True)


def base_of(files: ArtifactFiles) -> str | None:
    """Path or hub name of the model that an adapter changes."""
    named = files.extra.get(CONFIG, {}).get("base_model_name_or_path")
    return named[:300] if isinstance(named, str) and named.strip() else None


def no_model(files: ArtifactFiles) -> ArtifactError:
    """The error for an adapter where a model is needed."""
    return ArtifactError(
        f"{files.root.name} is an adapter on {base_of(files) or 'a base that it does not name'}, no model of its own.",
        why="What would be served is its base together with it; nothing here says what that is, or how it is quantized.",
        fix="merge it (PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(DIR)) and take DIR",
    )


def _described(files: ArtifactFiles, kind: str, ranks: set[int]) -> str:
    base = base_of(files)
    rank = f" of rank {' and '.join(str(one) for one in sorted(ranks))}" if 0 < len(ranks) < 4 else ""
    text = f"adapter-only: {kind}{rank} on {base or 'a base that it does not name'}, no model of its own"
    if base and _QUANTIZED_NAME.search(base.rpartition("/")[2]):
        text += "; by its name the base is quantized"
    return text


def _ranks(files: ArtifactFiles) -> set[int]:
    """Ranks of the LoRA pairs.

    Raises:
        ArtifactError: A half without the other, two ranks in one pair, or a config that names another rank.
    """
    ranks: set[int] = set()
    for name, first in files.tensors.items():
        if found := _PAIR.match(name):
            second = files.tensors.get(f"{found['module']}.lora_B{found['rest'] or ''}")
            if second is None or min(len(first.shape), len(second.shape)) < 2 or first.shape[0] != second.shape[1]:
                raise broken_layer(files, found["module"], "LoRA")
            ranks.add(first.shape[0])
    config = files.extra.get(CONFIG, {})
    claimed = config.get("r")
    if type(claimed) is int and ranks and not config.get("rank_pattern") and ranks != {claimed}:
        raise files.contradiction(CONFIG, f"rank {claimed}", f"rank {' and '.join(str(one) for one in sorted(ranks))}")
    return ranks


def _mixed(files: ArtifactFiles, name: str) -> ArtifactError:
    return ArtifactError(
        f"{files.root.name} holds {CONFIG}, and weights that are no adapter ({name[:100]}).",
        why="transformers would load the base that the adapter names, and not these weights.",
        fix=f"put model and adapter into folders of their own, or delete {CONFIG}",
    )
