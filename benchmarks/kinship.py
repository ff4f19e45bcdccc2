"""How far training moves a model, and how far another model lies: what the threshold of kinship rests on.

    python benchmarks/kinship.py --scratch /tmp/kinship                 # skills model: ten minutes on one core
    python benchmarks/kinship.py --scratch /tmp/kinship --large 30      # SmolLM2-135M too, so many steps of training

Quantization-aware training here is what it is everywhere: weights are rounded to the nearest level of their group in the
forward pass, gradients go straight through to the latent weights.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from descent_parents import PARENT, ROOT, another_seed, changed, once_quantized
from descent_quantizers import LINEAR, Weights, load, save
from torch import nn
from transformers import AutoModelForCausalLM

from mlflow_quantgov.artifact.derivation.kinship import Kinship, kinship

sys.path.insert(0, str(ROOT / "tools"))
import train_skills

from mlflow_quantgov.demo.models import skills_data


class Rounded(nn.Module):
    """A weight as a few levels per group, with the gradient of the identity."""

    def __init__(self, bits: int, group: int) -> None:
        super().__init__()
        self.top, self.group = 2**bits - 1, group

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Asymmetric levels between the smallest and largest weight of each group of columns."""
        groups = weight.reshape(-1, self.group)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale = ((high - low) / self.top).clamp(min=1e-8)
        rounded = (((groups - low) / scale).round() * scale + low).reshape(weight.shape)
        return weight + (rounded - weight).detach()


def quantization_aware(model: nn.Module, bits: int, group: int) -> None:
    """Round every linear weight in the forward pass from now on."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and LINEAR.search(f"{name}.weight"):
            nn.utils.parametrize.register_parametrization(module, "weight", Rounded(bits, group), unsafe=True)


def latent(model: nn.Module) -> Weights:
    """The full-precision weights below the rounding."""
    state = {
        name.replace(".parametrizations.weight.original", ".weight"): one for name, one in model.state_dict().items()
    }
    return {name: one.detach().float().numpy() for name, one in state.items() if name != "lm_head.weight"}


def train(folder: Path, loss_of: Callable[[Any], torch.Tensor], steps: int, rate: float, bits: int | None) -> Weights:
    """AdamW with a falling rate; with `bits`, quantization-aware."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if bits is not None:
        quantization_aware(model, bits, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    start, losses = time.monotonic(), []
    for step in range(steps):
        for each in optimizer.param_groups:
            each["lr"] = rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    tail = losses[-10:]
    print(
        f"# {steps} steps, {time.monotonic() - start:.0f} s, loss {losses[0]:.3f} -> {sum(tail) / len(tail):.3f}",
        flush=True,
    )
    return latent(model)


def skills_loss(seed: int = 5) -> Callable[[Any], torch.Tensor]:
    """The tasks that the skills model was trained on."""
    rng = random.Random(seed)
    held_out = {item["prompt"] for skill in skills_data.SKILLS for item in skills_data.items(skill)}

    def loss_of(model: Any) -> torch.Tensor:
        total = torch.zeros(())
        for skill, size in (("addition", 32), ("copying", 12), ("reversal", 20)):
            ids, labels = train_skills.skill_batch(skill, size, rng, held_out)
            total = total + model(input_ids=ids, labels=labels).loss
        return total

    return loss_of


def text_loss(
    encode: Callable[[str], list[int]], pattern: str, size: int = 8, length: int = 128
) -> Callable[[Any], torch.Tensor]:
    """Text that the model never saw: this repository's own."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(pattern)))
    tokens = torch.tensor(encode(text))

    def loss_of(model: Any) -> torch.Tensor:
        starts = torch.randint(0, len(tokens) - length, (size,)).tolist()
        batch = torch.stack([tokens[start : start + length] for start in starts])
        loss: torch.Tensor = model(input_ids=batch, labels=batch).loss
        return loss

    return loss_of


def skills_models(folder: Path) -> Iterator[tuple[str, Weights]]:
    """Label and weights of every model that is compared with the skills model."""
    weights, _ = load(folder)
    policies = text_loss(lambda text: list(text.encode()), "policies/**/*.yaml")
    yield "fine-tuned, 20 steps at 2e-4", train(folder, policies, 20, 2e-4, None)
    yield "fine-tuned, 300 steps at 1e-3", train(folder, policies, 300, 1e-3, None)
    yield "fine-tuned, 600 steps at 3e-3", train(folder, policies, 600, 3e-3, None)
    for bits in (3, 2):
        for steps, rate in ((8, 1e-3), (300, 2e-4), (300, 1e-3), (600, 3e-3)):
            yield f"{bits}-bit QAT, {steps} steps at {rate:g}", train(folder, skills_loss(), steps, rate, bits)
    yield "noise of 3 %", changed(weights, 0.03)
    yield "noise of 30 %", changed(weights, 0.3)
    yield "rounded to 2 bit and written back", once_quantized(weights, 2, 32)
    yield "random matrices, its own embedding and norms", another_seed(weights)
    other = train_skills.train(600, 2, 256, 2e-3, 0.01, seed=2)
    yield (
        "trained from another seed",
        {name: one.detach().float().numpy() for name, one in other.state_dict().items() if name != "lm_head.weight"},
    )


def large_models(folder: Path, steps: int) -> Iterator[tuple[str, Weights]]:
    """The same for SmolLM2-135M."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights, _ = load(folder)
    yield "SmolLM2: random matrices, its own embedding and norms", another_seed(weights)
    text = text_loss(lambda text: list(tokenizer(text)["input_ids"]), "docs/**/*.md", size=2, length=64)
    for bits, rate in ((2, 1e-4), (None, 1e-4)):
        label = f"{bits}-bit QAT" if bits else "fine-tuned"
        yield f"SmolLM2: {label}, {steps} steps at {rate:g}", train(folder, text, steps, rate, bits)


def row(label: str, found: Kinship) -> str:
    """One line of the table."""
    least = found.farthest
    assert least is not None, found.problem
    middle = sorted(one.correlation for one in found.matrices)[len(found.matrices) // 2]
    verdict = "kin" if found.holds else "not kin"
    return f"| {label} | {found.distance:.1%} | {middle:.3f} | {least.correlation:.3f} | {least.name} | {verdict} |"


def main() -> None:
    """Print a table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        "| model | moved by | middle correlation | least correlation | of | verdict |\n| --- | ---: | ---: | ---: | --- | --- |"
    )
    jobs = [(PARENT, skills_models(PARENT))]
    if options.large:
        from mlflow_quantgov.demo.models.smollm2 import write_parent

        original = write_parent(options.scratch / "smollm2")
        jobs = [(original, large_models(original, options.large))]
    for original, models in jobs:
        _, config = load(original)
        for label, weights in models:
            made = save(options.scratch / f"{original.name}-{abs(hash(label))}", weights, config)
            print(row(label, kinship(made, original)), flush=True)


if __name__ == "__main__":
    main()
