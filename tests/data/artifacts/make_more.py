"""Makes the artifacts of more tools: `python tests/data/artifacts/make_more.py [NAME ...]` (without names: all).

From the parent that `make.py` made. By the tools themselves, on a CPU: hqq 0.2.8, optimum-quanto 0.2.7, auto-round 0.16
(`iters=0`, which needs no data; one tuned on random words), nvidia-modelopt 0.47, peft 0.21, transformers 5 (its own float8 operation), and
compressed-tensors 0.10 in an environment of its own (the last versions with 2:4 layouts). Packed here with numpy, as
their writers need a GPU: gpt-oss' MXFP4 (checked with transformers' own unpacking) and AutoAWQ's GEMV.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from make import HERE, PARENT, claim, parent_arrays, quantize, start, write

_LINEAR = "_proj.weight"
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def parent_model() -> Any:
    """The parent, loaded by transformers."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(PARENT, dtype=torch.bfloat16)


def make_fp8() -> None:
    """Float8 in blocks of 32x32 by transformers' operation."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = FineGrainedFP8Config(weight_block_size=(32, 32))
    operation = Fp8Quantize(SimpleNamespace(quantization_config=config))
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(PARENT / "model.safetensors").items():
        parts = operation.convert({name: tensor}) if name.endswith(_LINEAR) else {name: tensor}
        tensors |= {key: one.contiguous() for key, one in parts.items()}
    folder = start("fp8-block")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    claim(folder, json.loads(config.to_json_string(use_diff=False)))


def make_modelopt() -> None:
    """Float8 with static activation scales and a float8 cache; NVFP4."""
    import copy

    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    def run(model: Any) -> None:
        with torch.no_grad():
            model(torch.randint(3, 128, (2, 16), generator=torch.Generator().manual_seed(0)))

    float8 = copy.deepcopy(mtq.FP8_DEFAULT_CFG)
    float8["quant_cfg"] += mtq.FP8_KV_CFG["quant_cfg"]
    for name, config in (("modelopt-fp8-kv", float8), ("modelopt-nvfp4", mtq.NVFP4_DEFAULT_CFG)):
        model = parent_model()
        mtq.quantize(model, config, run)
        export_hf_checkpoint(model, export_dir=str(HERE / name))
        keep(HERE / name)


def make_gpt_oss() -> None:
    """A tiny gpt-oss by transformers, and its experts in MXFP4."""
    import torch
    from safetensors.torch import load_file
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    config = GptOssConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        vocab_size=32, num_local_experts=2, num_experts_per_tok=1, max_position_embeddings=64, layer_types=["full_attention"],
        pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(HERE / "gpt-oss-parent")
    keep(HERE / "gpt-oss-parent")
    tensors = {}
    for name, tensor in load_file(HERE / "gpt-oss-parent" / "model.safetensors").items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = tensor
            continue
        blocks, scales = pack_mxfp4(tensor.float().numpy().transpose(0, 2, 1))
        tensors |= {
            f"{name}_blocks": torch.from_numpy(blocks).contiguous(),
            f"{name}_scales": torch.from_numpy(scales).contiguous(),
        }
        unpacked = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales)).float()
        assert float((unpacked - tensor.float()).abs().max()) < 0.1 * float(tensor.abs().max()) + 0.02
    from safetensors.torch import save_file

    folder = HERE / "mxfp4-gpt-oss"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(HERE / "gpt-oss-parent" / "config.json", folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    claim(folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]})


def pack_mxfp4(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks [..., out, groups, 16] and exponents [..., out, groups] of a stack [..., out, in]."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    exponent = np.ceil(np.log2(np.abs(groups).max(-1) / 6)).clip(-127, 127)
    scaled = groups / 2 ** exponent[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - _FP4).argmin(-1).astype(np.uint8) | ((scaled < 0) * 8).astype(np.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4, (exponent + 127).astype(np.uint8)


def make_hqq() -> None:
    """4 and 3 bit in groups of 32, along either axis, by hqq's own save_to_safetensors."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel

    for name, bits, axis in (("hqq-w4g32", 4, 1), ("hqq-w3g32-axis0", 3, 0)):
        model, folder = parent_model(), start(name)
        config = BaseQuantizeConfig(nbits=bits, group_size=32, axis=axis)
        AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=torch.bfloat16, device="cpu")
        AutoHQQHFModel.save_to_safetensors(model, f"{folder}/")


def make_quanto() -> None:
    """4 bit; 2 bit with groups (a wider layer has them), by QuantizedModelForCausalLM."""
    import torch
    from optimum.quanto import QuantizedModelForCausalLM, qint2, qint4
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    wide = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=32, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        )
    ).to(torch.bfloat16)  # fmt: skip
    for name, model, kind in (
        ("quanto-int4", parent_model(), qint4),
        ("quanto-int2-groups", wide, qint2),
    ):
        QuantizedModelForCausalLM.quantize(model, weights=kind, exclude="lm_head").save_pretrained(HERE / name)
        keep(HERE / name)


def make_auto_round() -> None:
    """GPTQ's packing with one layer of another width, AWQ's packing with zero points; the first tuned for 20 steps."""
    import torch
    from auto_round import AutoRound
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{index}": index for index in range(128)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0", pad_token="t0")
    mixed = {"model.layers.0.mlp.down_proj": {"bits": 8}}
    texts = torch.randint(3, 128, (16, 1, 32), generator=torch.Generator().manual_seed(0))
    tuned = {"iters": 20, "dataset": list(texts), "nsamples": 16, "seqlen": 32, "batch_size": 4}
    for name, settings in (
        ("autoround-w4g32-mixed", {"scheme": "W4A16", "group_size": 32, "layer_config": mixed}),
        ("autoround-w4g32-asym", {"scheme": "W4A16", "group_size": 32, "sym": False}),
        ("autoround-w4g32-tuned", {"scheme": "W4A16", "group_size": 32, **tuned}),
    ):
        with tempfile.TemporaryDirectory() as scratch:
            rounded = {"iters": 0, "disable_opt_rtn": True} | settings
            quantizer = AutoRound(parent_model(), tokenizer, device_map="cpu", enable_torch_compile=False, **rounded)
            quantizer.quantize_and_save(scratch, format="auto_round")
            shutil.rmtree(HERE / name, ignore_errors=True)
            shutil.copytree(next(Path(scratch).rglob("config.json")).parent, HERE / name)
        keep(HERE / name)


def make_awq_gemv() -> None:
    """AutoAWQ's GEMV layout: packed along the input, groups padded with zeros."""
    tensors: dict[str, np.ndarray] = {}
    for key, array in parent_arrays().items():
        if not key.endswith(_LINEAR):
            tensors[key] = array.astype(np.float16)
            continue
        stem = key.removesuffix("weight")
        codes, scales, zeros = quantize(array, 4, 32, symmetric=False)
        # calculate_zeros_width: words of eight groups, and four of those for groups of 32.
        padding = ((0, 0), (0, 32 - scales.shape[1]))
        tensors[f"{stem}qweight"] = eights(codes)
        tensors[f"{stem}qzeros"] = eights(np.pad(zeros, padding))
        tensors[f"{stem}scales"] = np.pad(scales, padding).astype(np.float16)
    folder = start("awq-gemv")
    write(folder, tensors)
    claim(folder, {"bits": 4, "group_size": 32, "zero_point": True, "version": "gemv", "quant_method": "awq"})


def eights(codes: np.ndarray) -> np.ndarray:
    """Eight 4-bit codes per word, lowest first."""
    grouped = codes.reshape(len(codes), -1, 8).astype(np.uint64)
    return (grouped << np.arange(0, 32, 4, dtype=np.uint64)).sum(axis=2).astype(np.uint32).view("<i4")


def make_adapter() -> None:
    """A LoRA of rank 4, by peft."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(parent_model(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = "example/tiny-llama-bnb-4bit"
    model.save_pretrained(HERE / "adapter-lora")
    keep(HERE / "adapter-lora", "adapter_config.json", "adapter_model.safetensors")


def make_sparse() -> None:
    """2:4 float8 with a mask, and marlin-24, by compressed-tensors 0.10."""
    import torch
    from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
    from compressed_tensors.compressors.sparse_quantized_compressors.marlin_24 import Marlin24Compressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from safetensors.torch import load_file, save_file

    float8 = QuantizationArgs(num_bits=8, type="float", strategy="channel", symmetric=True)
    int4 = QuantizationArgs(num_bits=4, strategy="channel", symmetric=True)
    masked: dict[str, torch.Tensor] = {}
    marlin: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(PARENT / "model.safetensors").items():
        if not name.endswith(_LINEAR):
            masked[name] = marlin[name] = tensor
            continue
        weight = tensor.float()
        weight.view(-1, 4)[:, :2] = 0
        stem, largest = name.removesuffix(".weight"), weight.abs().amax(1, keepdim=True)
        codes = (weight / (largest / 448)).to(torch.float8_e4m3fn)
        masked |= Sparse24BitMaskTensor.from_dense(codes).dict(stem) | {f"{stem}.weight_scale": largest / 448}
        if name.endswith(("q_proj.weight", "o_proj.weight")):
            scheme = {stem: QuantizationScheme(targets=["Linear"], weights=int4)}
            marlin |= Marlin24Compressor().compress({name: weight, f"{stem}.weight_scale": largest / 7}, scheme)
        else:
            marlin[name] = tensor
    for name, tensors, args, layout in (
        ("ct-sparse24-fp8", masked, float8, "float-quantized"),
        ("ct-marlin24-w4", marlin, int4, "marlin-24"),
    ):
        folder = start(name)
        save_file(
            {key: one.contiguous() for key, one in tensors.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        group = {"targets": ["Linear"], "weights": args.model_dump(mode="json")}
        sparsity = {"sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4"}}
        settings = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}
        claim(folder, settings | (sparsity if layout != "marlin-24" else {}))


def keep(folder: Path, *names: str) -> None:
    """Delete what no reader looks at."""
    wanted = names or (
        "config.json",
        "model.safetensors",
        "quanto_qmap.json",
        "hf_quant_config.json",
        "quantization_config.json",
    )
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for path in folder.iterdir():
        path.chmod(0o644)


MAKERS: dict[str, Callable[[], None]] = {
    "fp8": make_fp8,
    "modelopt": make_modelopt,
    "gpt-oss": make_gpt_oss,
    "hqq": make_hqq,
    "quanto": make_quanto,
    "auto-round": make_auto_round,
    "awq-gemv": make_awq_gemv,
    "adapter": make_adapter,
    "sparse": make_sparse,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or [name for name in MAKERS if name != "sparse"]:
        MAKERS[chosen]()
