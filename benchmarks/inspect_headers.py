"""Time and memory of `quantgov inspect` on header sets of large models: real headers, payloads that are holes in the file.

Usage: python benchmarks/inspect_headers.py [7B 70B 405B]

Work and memory are meant to depend on headers, not on size: the figures of one run, side by side, show whether they do.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Shape:
    """A Llama of a size."""

    layers: int
    hidden: int
    inner: int
    key_value: int
    vocabulary: int = 128_256


SIZES = {
    "7B": Shape(32, 4096, 11008, 4096, 32_000),
    "70B": Shape(80, 8192, 28672, 1024),
    "405B": Shape(126, 16384, 53248, 1024),
}


def matrices(shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of every linear layer."""
    for layer in range(shape.layers):
        stem = f"model.layers.{layer}."
        for name in ("q_proj", "o_proj"):
            yield f"{stem}self_attn.{name}", shape.hidden, shape.hidden
        for name in ("k_proj", "v_proj"):
            yield f"{stem}self_attn.{name}", shape.key_value, shape.hidden
        for name in ("gate_proj", "up_proj"):
            yield f"{stem}mlp.{name}", shape.inner, shape.hidden
        yield f"{stem}mlp.down_proj", shape.hidden, shape.inner


def tensors(shape: Shape, kind: str) -> Iterator[tuple[str, str, list[int], int]]:
    """Name, storage type, shape and stored bytes of every tensor of a folder."""
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        yield name, "BF16", [shape.vocabulary, shape.hidden], 2 * shape.vocabulary * shape.hidden
    yield "model.norm.weight", "BF16", [shape.hidden], 2 * shape.hidden
    for layer in range(shape.layers):
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", "BF16", [shape.hidden], 2 * shape.hidden
    for name, rows, columns in matrices(shape):
        if kind == "bf16":
            yield f"{name}.weight", "BF16", [rows, columns], 2 * rows * columns
            continue
        groups = columns // 128
        yield f"{name}.qweight", "I32", [columns // 8, rows], columns * rows // 2
        yield f"{name}.qzeros", "I32", [groups, rows // 8], groups * rows // 2
        yield f"{name}.scales", "F16", [groups, rows], 2 * groups * rows
        yield f"{name}.g_idx", "I32", [columns], 4 * columns


def _payload(tensor: str, sides: list[int]) -> bytes:
    """The few bytes that inspection looks at: which group a column is in, and that the output matrix is not the embedding."""
    if tensor.endswith(".g_idx"):
        return b"".join(struct.pack("<i", column // 128) for column in range(sides[0]))
    return b"\x80\x3f" if tensor == "lm_head.weight" else b""


def write_folder(folder: Path, shape: Shape, kind: str) -> int:
    """Write shards, index and config; returns the bytes that the files claim."""
    folder.mkdir(parents=True)
    shards: list[list[tuple[str, str, list[int], int]]] = [[]]
    for one in tensors(shape, kind):
        if shards[-1] and sum(entry[3] for entry in shards[-1]) + one[3] > SHARD_BYTES:
            shards.append([])
        shards[-1].append(one)
    mapped, total = {}, 0
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for tensor, dtype, sides, size in shard:
            header[tensor] = {"dtype": dtype, "shape": sides, "data_offsets": [offset, offset + size]}
            offset += size
            mapped[tensor] = name
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + offset)
            for tensor, entry in header.items():
                file.seek(8 + len(text) + entry["data_offsets"][0])
                file.write(_payload(tensor, entry["shape"]))
        total += offset
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.hidden // 128,
        "num_key_value_heads": shape.key_value // 128, "vocab_size": shape.vocabulary,
    }  # fmt: skip
    if kind == "gptq":
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    return total


def measure(folder: Path) -> tuple[float, float, str]:
    """Seconds, peak MB and found format of one `quantgov inspect` as a whole process."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "mlflow_quantgov", "inspect", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"inspect failed: {said.decode()[:500]}")
    found = json.loads(said)
    facts = f"{found['format']}, {found['bits_per_weight']:.2f} bits per weight, {found['total_parameters'] / 1e9:.1f}B"
    return time.perf_counter() - begun, usage.ru_maxrss / 1024, facts


def main(names: list[str]) -> None:
    """Write and inspect every set, one line each."""
    print(f"{'model':<14} {'claimed':>9} {'time':>8} {'peak':>8}  found")
    for name in names:
        for kind in ("bf16", "gptq"):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / name
                claimed = write_folder(folder, SIZES[name], kind)
                seconds, peak, facts = min(measure(folder) for _ in range(3))
                print(f"{name + ' ' + kind:<14} {claimed / 1e9:>6.0f} GB {seconds:>6.2f} s {peak:>5.0f} MB  {facts}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(SIZES))
