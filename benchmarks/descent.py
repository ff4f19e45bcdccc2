"""Which parents can be told apart: every quantizer, made from the true parent and from models that are not it.

    python benchmarks/descent.py [--only FP8] [--write docs/explanation/descent-table.md]

Needs the extras `transformers`, `gguf` and `onnx` and, for their rows, bitsandbytes, torchao and nncf; about six minutes on two
cores. The parent is the small trained model of the demonstration, or, for MXFP4, a random gpt-oss. What is not
quantized stays the parent's own in every false parent, so that only the matrices can tell. With `--only`, quantizers
whose names hold that text; `--write` then changes their lines of the table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import descent_floats as narrow
import descent_graphs as graphs
import descent_quantizers as make
import numpy as np
from descent_parents import EXPERTS, PARENT, activations, gpt_oss, parents

from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.artifact.derivation.casts import to_bfloat16

Quantizer = Callable[[Path, Path], Path]
NO_TRACE = {"GGUF IQ1_M, importance matrix", "GGUF Q4_0, importance matrix"}
"""Quantizers that choose neither the nearest codes nor a sign by rule: `unproved` is the truth for their parent."""
_SAME = 2.0**-10
Source = tuple[str, float, Path]
"""Label, distance from the parent, and folder."""
Results = dict[str, dict[str, Descent]]
_ABOUT = (
    "Written by `python benchmarks/descent.py --write docs/explanation/descent-table.md`. Error: largest relative error "
    "of a matrix. Of rounding: what rounding to the stored grid costs. Outside: largest share of the parent's weights "
    "outside the cells of their codes (of the first column where errors were compensated). Sees: smallest change of the "
    "parent that every matrix would have shown. See [descent](descent.md)."
)
_HEAD = [
    "| quantizer | made from | distance | error | error of rounding | outside | verdict | would have shown |",
    "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: |",
]


def quantizers(scratch: Path) -> dict[str, Quantizer]:
    """Every quantizer of the demonstration's model by label: takes a full-precision folder and a place to write to."""
    inputs = activations(PARENT)
    hessians = {name: one.T @ one for name, one in inputs.items()}
    magnitudes = {name: np.abs(one).mean(0) for name, one in inputs.items()}

    def by(write: Callable[..., Path], *settings: Any, **more: Any) -> Quantizer:
        return lambda source, target: write(target, *make.load(source), *settings, **more)

    found: dict[str, Quantizer] = {
        "GPTQ 8 bit, group 128": by(make.write_gptq, 8, 128, hessians),
        "GPTQ 4 bit, group 128": by(make.write_gptq, 4, 128, hessians),
        "GPTQ 4 bit, group 128, act-order": by(make.write_gptq, 4, 128, hessians, act_order=True),
        "GPTQ 3 bit, group 64": by(make.write_gptq, 3, 64, hessians),
        "GPTQ 2 bit, group 32": by(make.write_gptq, 2, 32, hessians),
        "Rounding 4 bit, group 128": by(make.write_gptq, 4, 128),
        "AWQ 4 bit, group 128": by(make.write_awq, 128, magnitudes),
        "SmoothQuant int8": by(make.write_smoothquant, magnitudes),
    }
    for kind in ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "MXFP4", "NVFP4", "TQ2_0", "Q1_0"):
        found[f"GGUF {kind}"] = _by_llama_cpp(kind, scratch)
    squares = {name: np.square(one).mean(0) for name, one in inputs.items()}
    for kind in ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ1_M", "Q4_K", "Q4_0"):
        found[f"GGUF {kind}, importance matrix"] = _by_llama_cpp(kind, scratch, squares)
    for label, config in _transformers_configs().items():
        found[label] = _by_transformers(config)
    return (
        found
        | graphs.quantizers()
        | {
            "FP8, blocks of 128x128": by(narrow.write_fp8_blocks, 128),
            "FP8 per channel": by(narrow.write_fp8_rows),
            "HQQ 4 bit, group 64": by(narrow.write_hqq, 4, 64),
            "HQQ 8 bit, group 64": by(narrow.write_hqq, 8, 64),
            "quanto int8": by(narrow.write_quanto, 8, "float32"),
            "quanto int4, group 128": by(narrow.write_quanto, 4, "float32"),
            "quanto int4, group 128, in bfloat16": by(narrow.write_quanto, 4, "bfloat16"),
        }
    )


def expert_quantizers() -> dict[str, Quantizer]:
    """Those of a gpt-oss."""
    return {"MXFP4, experts of gpt-oss": lambda source, target: narrow.write_mxfp4(target, *make.load(source))}


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


def summary(results: Results) -> list[str]:
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


def run(sources: list[Source], makers: dict[str, Quantizer], scratch: Path) -> tuple[Results, list[str], int]:
    """Quantize every model with every quantizer.

    Returns:
        What was found, the lines of the table, and the number of wrong verdicts.
    """
    wrong, results, lines = 0, Results(), list[str]()
    for quantizer, maker in makers.items():
        for label, distance, one in sources:
            child = maker(one, scratch / "child")
            found = compare(child, sources[0][2])
            results.setdefault(quantizer, {})[label] = found
            if not is_right(quantizer, distance, found):
                kept = adds_nothing(child, one)
                wrong += not kept
                label += ", on the same grid" if kept else " **wrong**"
            lines.append(row(quantizer, label, distance, found))
            print(lines[-1], flush=True)
            shutil.rmtree(scratch / "child", ignore_errors=True)
    return results, lines, wrong


def main(destination: Path | None, only: str) -> int:
    """Print the table, write it where asked, and return the number of wrong verdicts."""
    results, lines, wrong = Results(), list[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        print("\n".join(_HEAD))
        experts = gpt_oss(scratch / "gpt-oss")
        for sources, makers in (
            (parents(PARENT, scratch / "models"), quantizers(scratch)),
            (parents(experts, scratch / "experts", EXPERTS, to_bfloat16), expert_quantizers()),
        ):
            chosen = {label: maker for label, maker in makers.items() if only in label}
            found, more, bad = run(list(sources) if chosen else [], chosen, scratch)
            results, lines, wrong = results | found, lines + more, wrong + bad
    if destination is not None:
        text = destination.read_text(encoding="utf-8") if only else ""
        destination.write_text(table(results, lines, text), encoding="utf-8")
    print(f"{wrong} wrong verdicts of {len(lines)}")
    return wrong


def table(results: Results, lines: list[str], before: str = "") -> str:
    """The page, with the lines of other quantizers that stood on it before."""
    short = summary(results)
    kept = [line for line in before.splitlines() if line.startswith("| ") and line.split(" | ")[0][2:] not in results]
    full = [line for line in kept if line.count("|") == _HEAD[0].count("|")]
    brief = [line for line in kept if line not in full]
    in_short = [*short[:2], *[line for line in brief if line not in short[:2]], *short[2:]]
    in_full = [*_HEAD, *[line for line in full if line not in _HEAD], *lines]
    parts = ["# Every verdict", _ABOUT, "## In short", "\n".join(in_short), "## In full", "\n".join(in_full)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--only", default="", help="part of the names of the quantizers to run")
    arguments = parser.parse_args()
    sys.exit(1 if main(arguments.write, arguments.only) else 0)
