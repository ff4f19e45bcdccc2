"""Makes `optimum-int8` and `optimum-int8-no-past` of this folder: `python tests/data/artifacts/make_optimum.py`.

A small Llama with the demonstration's byte tokenizer, exported and quantized by optimum-onnx's command line, with and
without keys and values. It needs optimum-onnx and onnxruntime in an environment of their own (transformers below 4.58;
see docs/how-to/make-an-onnx-model.md). Made with torch 2.13.0, transformers 4.57.6, optimum 2.1.0, optimum-onnx 0.1.0, onnx
1.23.2 and onnxruntime 1.32.0.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SKILLS = HERE.parents[2] / "src" / "mlflow_quantgov" / "demo" / "models" / "skills"
KEPT = ("config.json", "model_quantized.onnx", "ort_config.json", "tokenizer.json", "tokenizer_config.json")


def make_parent(folder: Path) -> None:
    """Random numbers of a fixed seed, in the smallest model that has grouped heads."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=256, pad_token_id=257,
        tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SKILLS / name, folder)


def run(*command: str | Path) -> None:
    subprocess.run([str(Path(sys.executable).parent / "optimum-cli"), *map(str, command)], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        parent = Path(scratch) / "parent"
        make_parent(parent)
        for name, task in (("optimum-int8", "text-generation-with-past"), ("optimum-int8-no-past", "text-generation")):
            exported, quantized = Path(scratch) / f"{name}-float", Path(scratch) / name
            run("export", "onnx", "--model", parent, "--task", task, exported)
            run("onnxruntime", "quantize", "--onnx_model", exported, "--avx2", "--output", quantized)
            (HERE / name).mkdir(exist_ok=True)
            for kept in KEPT:
                shutil.copy(quantized / kept, HERE / name)


if __name__ == "__main__":
    main()
