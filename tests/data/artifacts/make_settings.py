"""Makes artifacts at settings that the other two scripts leave out: `python tests/data/artifacts/make_settings.py NAME ...`.

From the parent that `make.py` made, by the tools themselves, on a CPU: torchao 0.18 and transformers 5.24 (torchao),
llm-compressor 0.14.0.1 with compressed-tensors 0.19 and transformers 5.17 (compressed-tensors), which wants an environment
of its own.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from make import HERE, save_quantized
from make_more import keep, parent_model


def make_torchao() -> None:
    """8 bit as intx, whose codes take two roundings; 4-bit intx with int8 activations; MXFP4 with swizzled scales."""
    import torch
    from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, PerGroup
    from transformers import TorchAoConfig

    float4 = torch.float4_e2m1fn_x2
    for name, config in (
        ("torchao-intx8", IntxWeightOnlyConfig(torch.int8, PerGroup(32))),
        ("torchao-int8dyn-intx4", Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32))),
        ("torchao-mxfp4", MXDynamicActivationMXWeightConfig(activation_dtype=float4, weight_dtype=float4)),
    ):
        save_quantized(name, TorchAoConfig(config))
        keep(HERE / name)


def make_compressed_tensors() -> None:
    """Float8 in blocks that do not divide a row; MXFP8; 8 bit with zero points that are added in bfloat16; KV cache."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    blocks = {"type": "float", "strategy": "block", "block_structure": [64, 64], "symmetric": True}
    offset = {"type": "int", "strategy": "group", "group_size": 32, "symmetric": False}
    cache = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
    numbers = random.Random(0)
    ids = [numbers.randrange(3, 128) for _ in range(32)]
    data = Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * 32}])
    for name, recipe, sample in (
        ("ct-fp8-block-short", {"config_groups": {"a": (["Linear"], blocks)}}, None),
        ("ct-mxfp8", {"targets": "Linear", "scheme": "MXFP8A16"}, None),
        ("ct-w8g32-asym", {"config_groups": {"a": (["Linear"], offset)}}, None),
        ("ct-kv-cache-only", {"kv_cache_scheme": cache}, data),
    ):
        groups = recipe.get("config_groups", {})
        made = {
            key: QuantizationScheme(targets=targets, weights=QuantizationArgs(num_bits=8, **settings))
            for key, (targets, settings) in groups.items()
        }
        settings = recipe | ({"config_groups": made} if made else {})
        model = parent_model()
        calibration = {"dataset": sample, "num_calibration_samples": 1, "max_seq_length": 32, "tokenizer": words()}
        with torch.no_grad():
            oneshot(
                model=model,
                recipe=QuantizationModifier(ignore=["lm_head"], **settings),
                **(calibration if sample else {}),
            )
        model.save_pretrained(HERE / name, save_compressed=True)
        keep(HERE / name)


def words() -> Any:
    """A tokenizer of 128 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"t{one}": one for one in range(128)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0", pad_token="t0")


MAKERS: dict[str, Callable[[], None]] = {
    "torchao": make_torchao,
    "compressed-tensors": make_compressed_tensors,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or MAKERS:
        MAKERS[chosen]()
