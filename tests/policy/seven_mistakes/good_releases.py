"""Good releases of different formats, runtimes and widths: each is let through."""

from __future__ import annotations

from whole_releases import CPU, GPU, Release, captured, representative

LLAMA_CPP = Release("8 bit in llama.cpp", "tiny-Q8_0.gguf", captured("cpu-llamacpp", CPU), "CPU_REPACK")
GPTQ = Release(
    "4 bit GPTQ on a GPU, calibrated on its own traffic", "gptq-w4g32", captured("gpu-transformers", GPU), "MarlinLinear",
    version="5.24.0", calibration=representative,
)  # fmt: skip
GOOD = (
    LLAMA_CPP,
    Release("4 bit Q4_0 in llama.cpp", "tiny-Q4_0.gguf", captured("cpu-llamacpp", CPU), "CPU_REPACK"),
    GPTQ,
    Release(
        "4 bit AWQ on a GPU", "awq-w4g32", captured("gpu-transformers", GPU), "AwqMarlinLinear", version="5.24.0",
        calibration=representative,
    ),
    Release(
        "8 bit ONNX, quantized dynamically", "onnx-int8-dynamic", captured("cpu-onnxruntime", CPU), "DynamicQuantizeMatMul",
        version="1.32.0",
    ),
    Release(
        "4 bit ONNX in blocks", "onnx-int4-nbits", captured("cpu-onnxruntime", CPU), "MatMulNBits", version="1.32.0",
        calibration=representative,
    ),
)
