"""Which parents can be told apart: every quantizer, made from the true parent and from models that are not it.

    python benchmarks/descent.py [--only ONNX] [--write docs/explanation/descent-table.md]

Needs the extras `transformers` and `gguf` and, for their rows, bitsandbytes, torchao, onnxruntime-genai and nncf; about three minutes on two
cores. The parent is the small trained model of the demonstration. What is not quantized stays the parent's own in every
false parent, so that only the matrices can tell.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import descent_graphs as graphs
import descent_quantizers as make

from mlflow_quantgov.artifact.derivation import Descent, compare

ROOT = Path(__file__).parents[1]
PARENT = ROOT / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"
Quantizer = Callable[[Path, Path], Path]
NO_TRACE = {"GGUF IQ1_M, importance matrix", "GGUF Q4_0, importance matrix"}
"""Quantizers that choose neither the nearest codes nor a sign by rule: `unproved` is the truth for their parent."""
_SAME = 2.0**-10
_ABOUT = (
    "Written by `python benchmarks/descent.py --write docs/explanation/descent-table.md`. Error: largest relative error "
    "of a matrix. Of rounding: what rounding to the stored grid costs. Outside: largest share of the parent's weights "
    "outside the cells of their codes (of the first column where errors were compensated). Sees: smallest change of the "
    "parent that every matrix would have shown. See [descent](descent.md)."
)


def activations(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of every linear layer, [tokens, channels], while the model reads some of this package."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = b"".join(path.read_bytes() for path in sorted((ROOT / "src" / "mlflow_quantgov" / "policy").glob("*.py")))
    tokens = torch.tensor(list(text[: 64 * 128])).reshape(64, 128)
    seen: dict[str, np.ndarray[Any, Any]] = {}

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


def fine_tuned(folder: Path, steps: int, rate: float) -> make.Weights:
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


def parents(scratch: Path) -> Iterator[tuple[str, float, Path]]:
    """Label, distance (relative Frobenius norm over all matrices) and folder of every model to quantize."""
    weights, config = make.load(PARENT)
    tuned = fine_tuned(PARENT, 20, 2e-4)
    made = {
        "the parent": weights,
        "another seed": make.another_seed(weights),
        "changed by 0.1 %": make.changed(weights, 0.001),
        "changed by 0.3 %": make.changed(weights, 0.003),
        "changed by 1 %": make.changed(weights, 0.01),
        "changed by 3 %": make.changed(weights, 0.03),
        "changed by 3 %, rank 4": make.changed(weights, 0.03, rank=4),
        "changed by 10 %": make.changed(weights, 0.1),
        "fine-tuned, 20 steps of AdamW": {**weights, **{n: w for n, w in tuned.items() if make.LINEAR.search(n)}},
        "quantized before, 8 bit": make.once_quantized(weights, 8, -1),
        "quantized before, 4 bit": make.once_quantized(weights, 4, 32),
    }
    for label, one in made.items():
        folder = scratch / "parents" / label.replace(" ", "-").replace("%", "percent").replace(",", "")
        # float32: rounding to bfloat16 would move the matrices by 0.2 % more.
        make.save(folder, one, config | {"dtype": "float32", "torch_dtype": "float32"})
        for extra in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(PARENT / extra, folder)
        names = [name for name in weights if make.LINEAR.search(name)]
        moved = sum(float(np.square(one[name] - weights[name]).sum()) for name in names)
        whole = sum(float(np.square(weights[name]).sum()) for name in names)
        yield label, (moved / whole) ** 0.5, folder


def quantizers(scratch: Path) -> dict[str, Quantizer]:
    """Every quantizer by label: takes a full-precision folder and a place to write to."""
    inputs = activations(PARENT)
    hessians = {name: one.T @ one for name, one in inputs.items()}
    magnitudes = {name: np.abs(one).mean(0) for name, one in inputs.items()}

    def by_gptq(bits: int, group: int, act_order: bool = False) -> Quantizer:
        return lambda source, target: make.write_gptq(
            target, *make.load(source), bits, group, hessians, act_order=act_order
        )  # fmt: skip

    found: dict[str, Quantizer] = {
        "GPTQ 8 bit, group 128": by_gptq(8, 128),
        "GPTQ 4 bit, group 128": by_gptq(4, 128),
        "GPTQ 4 bit, group 128, act-order": by_gptq(4, 128, True),
        "GPTQ 3 bit, group 64": by_gptq(3, 64),
        "GPTQ 2 bit, group 32": by_gptq(2, 32),
        "Rounding 4 bit, group 128": lambda source, target: make.write_gptq(target, *make.load(source), 4, 128),
        "AWQ 4 bit, group 128": lambda source, target: make.write_awq(target, *make.load(source), 128, magnitudes),
        "SmoothQuant int8": lambda source, target: make.write_smoothquant(target, *make.load(source), magnitudes),
    }
    for kind in ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "MXFP4", "NVFP4", "TQ2_0", "Q1_0"):
        found[f"GGUF {kind}"] = _by_llama_cpp(kind, scratch)
    squares = {name: np.square(one).mean(0) for name, one in inputs.items()}
    for kind in ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ1_M", "Q4_K", "Q4_0"):
        found[f"GGUF {kind}, importance matrix"] = _by_llama_cpp(kind, scratch, squares)
    for label, config in _transformers_configs().items():
        found[label] = _by_transformers(config)
    return found | graphs.quantizers()


def _by_llama_cpp(kind: str, scratch: Path, squares: dict[str, np.ndarray[Any, Any]] | None = None) -> Quantizer:
    """llama.cpp's quantizer, told the mean squares of each matrix's inputs where there are any."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import quantize_gguf
    from mlflow_quantgov.artifact.runtimes.llama_cpp.twin import gguf_twin
    from mlflow_quantgov.artifact.structure import canonical_name
    from mlflow_quantgov.artifact.tensors import read_gguf

    def run(source: Path, target: Path) -> Path:
        twin = gguf_twin(source, scratch / "twins").path
        names = {name: canonical_name(name) for name in read_gguf(twin).tensors}
        importance = {name: squares[one] for name, one in names.items() if squares and one in squares}
        return quantize_gguf(twin, target.with_suffix(".gguf"), kind, importance=importance).path

    return run


def _transformers_configs() -> dict[str, Any]:
    """Configurations of the quantizers that transformers calls, where their libraries are there."""
    found: dict[str, Any] = {}
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig

        nested = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        found["bitsandbytes NF4, nested"] = BitsAndBytesConfig(**nested)
        found["bitsandbytes int8"] = BitsAndBytesConfig(load_in_8bit=True)
    except ImportError:
        pass
    try:
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        found["torchao int8"] = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    except ImportError:
        pass
    return found


def _by_transformers(config: Any) -> Quantizer:
    def run(source: Path, target: Path) -> Path:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, quantization_config=config, device_map="cpu"
        )
        model.save_pretrained(target)
        return target

    return run


def row(quantizer: str, label: str, distance: float, found: Descent) -> str:
    """One line of the table."""
    matrices = [one for one in found.layers if one.bits is not None]
    error = max((one.relative_error for one in matrices), default=0.0)
    reach = max((one.reachable_error or 0.0 for one in matrices), default=0.0)
    limit = f"{100 * found.resolution:.2g} %" if found.resolution is not None else ""
    away = percent(distance)
    return (
        f"| {quantizer} | {label} | {away} | {100 * error:.2f} % | {100 * reach:.2f} % | {100 * _outside(found):.2f} % | "
        f"{found.verdict} | {limit} |"
    )


def summary(results: dict[str, dict[str, Descent]]) -> list[str]:
    """One line per quantizer, one column per model that it was made from: verdict and share outside."""
    labels = list(next(iter(results.values())))
    head = ["quantizer", "error", "of rounding", "sees", *labels]
    lines = [f"| {' | '.join(head)} |", f"| --- | ---: | ---: | ---: |{' --- |' * len(labels)}"]
    for quantizer, found in results.items():
        truly = found[labels[0]]
        matrices = [one for one in truly.layers if one.bits is not None]
        error = max(one.relative_error for one in matrices)
        reach = max(one.reachable_error or 0.0 for one in matrices)
        sees = f"{100 * truly.resolution:.2g} %" if truly.resolution is not None else ""
        cells = [f"{one.verdict} {percent(_outside(one))}" for one in found.values()]
        lines.append(f"| {quantizer} | {percent(error)} | {percent(reach)} | {sees} | {' | '.join(cells)} |")
    return lines


def _outside(found: Descent) -> float:
    return max((one.outside for one in found.layers if one.bits is not None), default=0.0)


def percent(share: float) -> str:
    """A share with two digits that count."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def is_right(quantizer: str, distance: float, found: Descent) -> bool:
    """The true parent is proved; another is not, unless it is nearer than what the verdict says it can see."""
    if distance == 0:
        return found.verdict == "proved" or (found.verdict == "unproved" and quantizer in NO_TRACE)
    return found.verdict != "proved" or (found.resolution is not None and distance <= found.resolution)


def adds_nothing(child: Path, source: Path) -> bool:
    """Whether the quantizer kept what it was given: a model that was on its grid before.

    Rounding it again changes nothing, so what came out is what rounding its parent once gives, and `proved` is true.
    """
    matrices = [one for one in compare(child, source).layers if make.LINEAR.search(one.name)]
    return max(one.relative_error for one in matrices) < _SAME


def main(destination: Path | None, only: str) -> int:
    """Print the table of quantizers that have some words in their label, write it, and count the wrong verdicts."""
    lines = [
        "| quantizer | made from | distance | error | error of rounding | outside | verdict | would have shown |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    wrong, results = 0, dict[str, dict[str, Descent]]()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sources = list(parents(scratch))
        true = sources[0][2]
        for quantizer, run in quantizers(scratch).items():
            if only not in quantizer:
                continue
            for label, distance, source in sources:
                child = run(source, scratch / "child")
                found = compare(child, true)
                results.setdefault(quantizer, {})[label] = found
                if not is_right(quantizer, distance, found):
                    kept = adds_nothing(child, source)
                    wrong += not kept
                    label += ", on the same grid" if kept else " **wrong**"
                lines.append(row(quantizer, label, distance, found))
                print(lines[-1], flush=True)
                shutil.rmtree(scratch / "child", ignore_errors=True)
    if destination is not None:
        written = [
            "# Every verdict",
            "",
            _ABOUT,
            "",
            "## In short",
            "",
            *summary(results),
            "",
            "## In full",
            "",
            *lines,
        ]
        destination.write_text("\n".join(written) + "\n", encoding="utf-8")
    print("\n".join(summary(results)))
    print(f"{wrong} wrong verdicts of {len(lines) - 2}")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--only", default="", metavar="WORDS", help="only quantizers with this in their label")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write writes the whole table; run it without --only")
    sys.exit(1 if main(given.write, given.only) else 0)
