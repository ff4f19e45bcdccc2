"""Good releases of different formats, runtimes and widths: each is let through."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import narrow_files
from calibration_files import assessed
from releases import digest, timed
from whole_releases import (
    CAPABILITIES,
    CPU,
    GPU,
    Make,
    Pair,
    Release,
    Trained,
    asked,
    benchmark,
    captured,
    evaluated,
    representative,
)  # fmt: skip

from mlflow_quantgov.evidence.measure.task_eval_jsonl import from_jsonl
from mlflow_quantgov.evidence.predicates import Benchmark, TaskEval
from mlflow_quantgov.evidence.predicates.benchmark_v3 import NotLoaded, Resources
from mlflow_quantgov.policy.loader import load_policy

OLD_CPU = CPU.model_copy(update={"cpu_flags": ("avx2",)})
LLAMA_CPP = Release("8 bit in llama.cpp", "tiny-Q8_0.gguf", captured("cpu-llamacpp", CPU), "CPU_REPACK")
GPTQ = Release(
    "4 bit GPTQ on a GPU, calibrated on its own traffic", "gptq-w4g32", captured("gpu-transformers", GPU), "MarlinLinear",
    version="5.24.0", calibration=representative,
)  # fmt: skip
FOLDERS = {name: digest(str(number)) for number, name in enumerate(CAPABILITIES)}
"""Where each capability has tasks in a folder of its own."""


def searched_in(capability: str) -> Make:
    """Calibration data that were searched for the items of one of the folders."""
    return lambda _: assessed().model_copy(update={"searched_tasks": FOLDERS[capability]})


ONNX = Release(
    "8 bit ONNX, quantized dynamically", "onnx-int8-dynamic", captured("cpu-onnxruntime", CPU), "DynamicQuantizeMatMul",
    version="1.32.0",
)  # fmt: skip
NF4 = Release(
    "4 bit NF4 on a GPU, faster than its parent there", "bnb-nf4-double", captured("gpu-transformers", GPU),
    "Linear4bit Params4bit uint8", version="5.24.0",
)  # fmt: skip
NARROW = Release(
    "3 bit in llama.cpp after training, a 4 bit version measured first",
    lambda _: narrow_files.gguf("Q3_K", trained=True),
    captured("cpu-llamacpp", CPU),
    "CPU",
    parent=narrow_files.original,
    trained=Trained(narrow_files.checkpoint, lambda _: narrow_files.gguf("Q4_K")),
)


def alone(pair: Pair, cause: str = "memory") -> Benchmark:
    """Timed where the parent was killed for memory while it was loaded."""
    lost = NotLoaded(cause=cause, error="its process was ended by SIGKILL", free_memory_bytes=1000)
    loads = tuple(timed(None, **load.model_dump()) for load in pair.target.loads)
    return benchmark(pair, parent_not_loaded=lost, parent_tries=(), parent_resources=Resources(), loads=loads)


def as_lines(capability: str) -> Make:
    """Scores of a benchmark of one's own, brought as plain lines whose items are known by their numbers alone."""

    def brought(pair: Pair) -> TaskEval:
        folder = Path(tempfile.mkdtemp(prefix="lines-"))
        for side in ("parent", "quantized"):
            rows = ({"id": n, "score": int(n >= 20), "output": f"{side} {n}"} for n in range(200))
            (folder / side).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return from_jsonl(
            folder / "parent", folder / "quantized", capability=capability, parent_weights=pair.parent.weights,
            quantized_weights=pair.quantized.weights,
        )  # fmt: skip

    return brought


def with_floors(text: str) -> str:
    """The default policy with floors for those whose parent does not load."""
    return load_policy().text.replace(
        "    least_bits: 4  ", f"    benchmark: {{floors: {text}}}\n    least_bits: 4  ", 1
    )


GOOD = (
    LLAMA_CPP,
    Release("4 bit Q4_0 in llama.cpp", "tiny-Q4_0.gguf", captured("cpu-llamacpp", CPU), "CPU_REPACK"),
    GPTQ,
    Release(
        "4 bit AWQ on a GPU, calibrated on its own traffic", "awq-w4g32", captured("gpu-transformers", GPU),
        "AwqMarlinLinear", version="5.24.0", calibration=representative,
    ),
    NF4,
    replace(
        GPTQ,
        name="4 bit GPTQ, whose tasks lie in three folders that were searched one by one",
        calibration=None,
        statements=(
            *GPTQ.but(
                "task-eval", lambda pair: evaluated(pair, *(asked(one, task_digest=FOLDERS[one]) for one in CAPABILITIES))
            ).statements[:-1],
            *((f"calibration {one}", searched_in(one)) for one in CAPABILITIES),
        ),
    ),
    ONNX,
    Release(
        "8 bit ONNX, dynamic, on a CPU of which the guide expects nothing, timed there", "onnx-int8-dynamic",
        captured("cpu-onnxruntime", OLD_CPU), "DynamicQuantizeMatMul", version="1.32.0",
    ),
    Release(
        "4 bit ONNX in blocks", "onnx-int4-nbits", captured("cpu-onnxruntime", CPU), "MatMulNBits", version="1.32.0",
        calibration=representative,
    ),
    Release(
        "8 bit ONNX with static activations", "onnx-int8-qdq", captured("cpu-onnxruntime", CPU), "QLinearMatMul",
        version="1.32.0", calibration=representative,
    ),
    Release(
        "8 bit weights and activations of compressed-tensors in vLLM", "ct-w8a8", captured("gpu-vllm-ampere", GPU),
        "CutlassInt8ScaledMMLinearKernel", version="0.33.0", calibration=representative,
    ),
    Release(
        "8 bit of bitsandbytes on a GPU, faster than its parent there", "bnb-int8", captured("gpu-transformers", GPU),
        "Linear8bitLt Int8Params int8", version="5.24.0",
    ),
    NARROW,
    replace(
        LLAMA_CPP,
        name="8 bit in llama.cpp, its scores brought from elsewhere as numbered lines",
        statements=(*LLAMA_CPP.but("task-eval").statements, *((f"task-eval {one}", as_lines(one)) for one in CAPABILITIES)),
    ),
    Release(
        "8 bit in llama.cpp, whose parent does not load, with floors", "tiny-Q8_0.gguf", captured("cpu-llamacpp", CPU),
        "CPU_REPACK", policy=with_floors("{decode_tokens_per_second: 20, peak_memory_gb: 0.001}"),
    ).but("benchmark", alone),
)  # fmt: skip
