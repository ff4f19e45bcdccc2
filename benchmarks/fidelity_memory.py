"""Peak memory and time of a fidelity measurement as a whole process, for vocabularies up to 256k.

Usage: python benchmarks/fidelity_memory.py [RUNTIME ...]

The models are two tiny Llamas (hidden size 16, random weights) with a large vocabulary, so that logits are nearly all that
is held. Memory is meant to be bounded by the window, whatever the text's length: the last line has ten times the text.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mlflow_quantgov.demo.models import SKILLS

HIDDEN, LAYERS = 16, 1
CASES = ((32_000, 4_000), (128_256, 4_000), (151_936, 4_000), (256_000, 4_000), (151_936, 40_000))
"""Vocabulary and characters (with the byte tokenizer nearly as many tokens)."""
MEASURE = """
import resource, sys, json
from pathlib import Path
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.evidence.measure import fidelity
parent, quantized, text, runtime, cache = sys.argv[1:]
with find_runtime(runtime).open(Path(parent), cache=Path(cache) / "twins", threads=2) as one:
    one.logits([1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = fidelity.measure(Path(parent), Path(quantized), text=Path(text), parent_weights="sha256:" + "a" * 64,
    quantized_weights="sha256:" + "b" * 64, runtime=runtime, settings={"threads": 2}, cache=Path(cache))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([before, after, found.summary["tokens"], found.settings["window"]]))
"""


def write_model(folder: Path, vocabulary: int, seed: int) -> Path:
    """A tiny Llama with the tokenizer of the skills model, which uses only its first tokens."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "lm_head.weight": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}."
        shapes |= {f"{stem}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{stem}mlp.{name}_proj.weight": (HIDDEN, HIDDEN) for name in ("gate", "up", "down")}
    tensors = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    norms = ["model.norm", *(f"model.layers.{layer}.{name}_layernorm" for layer in range(LAYERS)
                             for name in ("input", "post_attention"))]  # fmt: skip
    tensors |= {f"{name}.weight": np.ones(HIDDEN, np.float32) for name in norms}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((SKILLS / "config.json").read_text()) | {
        "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "head_dim": HIDDEN, "num_attention_heads": 1,
        "num_key_value_heads": 1, "num_hidden_layers": LAYERS, "vocab_size": vocabulary, "tie_word_embeddings": False,
        "max_position_embeddings": 1024, "dtype": "float32", "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SKILLS / name, folder / name)
    return folder


def measure(folder: Path, runtime: str, vocabulary: int, characters: int) -> str:
    """One line of the table."""
    parent, quantized = (write_model(folder / str(seed), vocabulary, seed) for seed in (1, 2))
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"{n} {'the cat sat on the mat ' * 80}"[:2000] for n in range(characters // 2000)))
    command = [sys.executable, "-c", MEASURE, *map(str, (parent, quantized, text)), runtime, str(folder / "cache")]
    begun = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    if process.returncode:
        raise SystemExit(process.stderr[-2000:])
    before, after, tokens, window = json.loads(process.stdout.splitlines()[-1])
    seconds = time.perf_counter() - begun
    logits = 4 * window * vocabulary / 2**20
    return (
        f"{runtime:<13} {vocabulary:>8,} {tokens:>8,} {window:>7} {logits:>7.0f} MB {before / 1024:>9.0f} MB "
        f"{after / 1024:>7.0f} MB {seconds:>7.1f} s"
    )


def main(runtimes: list[str]) -> None:
    """Measure every case in every runtime, one line each."""
    print("runtime        vocabulary  tokens  window  one side   one loaded     peak      time")
    for runtime in runtimes:
        for vocabulary, characters in CASES:
            with tempfile.TemporaryDirectory() as scratch:
                print(measure(Path(scratch), runtime, vocabulary, characters), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["transformers", "llama.cpp"])
