"""Models that a quantized one may, or may not, come from.

Changes are made to the matrices that are quantized later, and to nothing else, which makes it harder to tell.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from descent_quantizers import LINEAR, Array, Weights, dequantized, load, round_to_nearest, save

ROOT = Path(__file__).parents[1]
PARENT = ROOT / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"
EXPERTS = re.compile(r"experts\.(gate_up|down)_proj$")
"""Matrices of gpt-oss that MXFP4 is for."""
_EXTRAS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def another_seed(weights: Weights, seed: int = 1, *, which: re.Pattern[str] = LINEAR) -> Weights:
    """Matrices of the same spread from other random numbers."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(one.shape) * one.std()).astype(np.float32) if which.search(name) else one
        for name, one in weights.items()
    }


def changed(
    weights: Weights, distance: float, *, rank: int | None = None, seed: int = 2, which: re.Pattern[str] = LINEAR
) -> Weights:
    """Matrices moved by a part of their norm, in all directions or in a few (as LoRA does)."""
    random = np.random.default_rng(seed)
    moved = dict(weights)
    for name, one in weights.items():
        if which.search(name):
            shape = flat(one).shape
            step = random.standard_normal(shape) if rank is None else \
                random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, shape[1]))  # fmt: skip
            step = step.reshape(one.shape)
            moved[name] = (one + step * (distance * np.linalg.norm(one) / np.linalg.norm(step))).astype(np.float32)
    return moved


def once_quantized(weights: Weights, bits: int, group: int, *, which: re.Pattern[str] = LINEAR) -> Weights:
    """Matrices rounded to a few bits and written back as floats."""
    return {
        name: dequantized(*round_to_nearest(flat(one), bits, group, symmetric=True)).reshape(one.shape)
        if which.search(name)
        else one
        for name, one in weights.items()
    }


def flat(one: Array) -> Array:
    """A stack of matrices as one."""
    return one.reshape(-1, one.shape[-1])


def activations(folder: Path) -> dict[str, Array]:
    """Inputs of every linear layer, [tokens, channels], while the model reads some of this package."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = b"".join(path.read_bytes() for path in sorted((ROOT / "src" / "mlflow_quantgov" / "policy").glob("*.py")))
    tokens = torch.tensor(list(text[: 64 * 128])).reshape(64, 128)
    seen: dict[str, Array] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            seen[name] = inputs[0].reshape(-1, inputs[0].shape[-1]).double().numpy()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(keep(f"{name}.weight"))
    with torch.no_grad():
        model(tokens)
    return seen


def fine_tuned(folder: Path, steps: int, rate: float) -> Weights:
    """The parent after some steps of AdamW on this repository's policy files."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = b"".join(path.read_bytes() for path in sorted((ROOT / "policies").rglob("*.yaml")))
    tokens = torch.tensor(list(text))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        starts = torch.randint(0, len(tokens) - 129, (8,)).tolist()
        batch = torch.stack([tokens[start : start + 128] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: one.detach().numpy() for name, one in model.named_parameters()}


def gpt_oss(folder: Path) -> Path:
    """A random gpt-oss in bfloat16: two layers, four experts, 0.4 million weights in them."""
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    config = GptOssConfig(
        hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        vocab_size=258, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256, pad_token_id=256, eos_token_id=256,
        layer_types=["full_attention"] * 2,
    )  # fmt: skip
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def parents(
    source: Path, scratch: Path, which: re.Pattern[str] = LINEAR, cast: Callable[[Array], Array] | None = None
) -> Iterator[tuple[str, float, Path]]:
    """Label, distance (relative Frobenius norm over all matrices) and folder of every model to quantize.

    Args:
        source: The parent.
        scratch: Where to write the models.
        which: Names of the matrices that the others differ in.
        cast: Rounding of the models to the type that their quantizer takes. What it undoes is no distance. By default
            none: rounding to bfloat16 would move the matrices by 0.2 % more.
    """
    weights, config = load(source)
    tuned = fine_tuned(source, 20, 2e-4)
    names = [name for name in weights if which.search(name)]
    made = {
        "the parent": weights,
        "another seed": another_seed(weights, which=which),
        "changed by 0.1 %": changed(weights, 0.001, which=which),
        "changed by 0.3 %": changed(weights, 0.003, which=which),
        "changed by 1 %": changed(weights, 0.01, which=which),
        "changed by 3 %": changed(weights, 0.03, which=which),
        "changed by 3 %, rank 4": changed(weights, 0.03, rank=4, which=which),
        "changed by 10 %": changed(weights, 0.1, which=which),
        "fine-tuned, 20 steps of AdamW": {**weights, **{name: tuned[name] for name in names}},
        "quantized before, 8 bit": once_quantized(weights, 8, -1, which=which),
        "quantized before, 4 bit": once_quantized(weights, 4, 32, which=which),
    }
    for label, one in made.items():
        folder = scratch / label.replace(" ", "-").replace("%", "percent").replace(",", "")
        one = {name: cast(weight) for name, weight in one.items()} if cast else one
        save(folder, one, config | {"dtype": "float32", "torch_dtype": "float32"})
        for extra in _EXTRAS:
            if (source / extra).is_file():
                shutil.copy(source / extra, folder)
        moved = sum(float(np.square(one[name] - weights[name]).sum()) for name in names)
        whole = sum(float(np.square(weights[name]).sum()) for name in names)
        yield label, (moved / whole) ** 0.5, folder
