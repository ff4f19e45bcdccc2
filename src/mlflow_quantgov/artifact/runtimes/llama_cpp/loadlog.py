"""What llama.cpp's load log says about the weights: types, buffers, and the layout that kernels were given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_TYPE = re.compile(r"^llama_model_loader: - type\s+(\S+):\s+(\d+) tensors")
_BUFFER = re.compile(r"^load_tensors:\s+(\S+) model buffer size =\s+([0-9.]+) MiB")
_REPACK = re.compile(r"repack tensor \S+ with (\S+)")
_FEATURE = re.compile(r"(\w+) = 1")
_NAMES = {
    "AVX2": "avx2", "AVX512": "avx512f", "AVX512_VNNI": "avx512_vnni", "AVX_VNNI": "avx_vnni", "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve",
}  # fmt: skip
"""Names of `llama_print_system_info` to those of Linux, of the instruction sets that decide kernels."""


@dataclass(frozen=True)
class LoadLog:
    """The parts of a load log that count."""

    types: dict[str, int]
    """Storage type (`q4_0`, `f32`) to number of tensors."""
    buffers: dict[str, int]
    """Buffer type (`CPU_Mapped`, `CPU_REPACK`) to bytes, as rounded by the log to 0.01 MiB."""
    layouts: dict[str, int]
    """Interleaved layout (`q4_0_8x8`) to number of tensors repacked into it."""

    @property
    def kernel(self) -> str | None:
        """Buffer type that holds most bytes, with the layout or storage type of most of its tensors."""
        if not self.buffers:
            return None
        buffer = max(self.buffers, key=lambda name: self.buffers[name])
        if "REPACK" in buffer and self.layouts:
            return f"{buffer} {max(self.layouts, key=lambda name: self.layouts[name])}"
        quantized = {name: count for name, count in self.types.items() if name != "f32"} or self.types
        return f"{buffer} {max(quantized, key=lambda name: quantized[name])}" if quantized else buffer

    @property
    def resident_bytes(self) -> int | None:
        """Bytes of all weight buffers together; None where the log names none."""
        return sum(self.buffers.values()) or None


def read_load_log(lines: Iterable[str]) -> LoadLog:
    """Read types, buffers and repacked layouts out of llama.cpp's log."""
    types: Counter[str] = Counter()
    buffers: Counter[str] = Counter()
    layouts: Counter[str] = Counter()
    for line in "".join(lines).splitlines():
        if found := _TYPE.match(line):
            types[found[1]] += int(found[2])
        elif found := _BUFFER.match(line):
            buffers[found[1]] += round(float(found[2]) * 2**20)
        elif found := _REPACK.search(line):
            layouts[found[1]] += 1
    return LoadLog(dict(types), dict(buffers), dict(layouts))


def instruction_sets(system_info: str) -> tuple[str, ...]:
    """Instruction sets that the library was built for, as Linux names them, of those that decide kernels.

    Args:
        system_info: What `llama_print_system_info` returns, `CPU : AVX2 = 1 | AVX512 = 0 | ...`.
    """
    built = set(_FEATURE.findall(system_info))
    return tuple(linux for name, linux in _NAMES.items() if name in built)


def failure(lines: Iterable[str]) -> str:
    """The reason that llama.cpp gave for not loading a file, in its own words, one line of at most 300 characters."""
    reasons = [line for line in "".join(lines).splitlines() if "error" in line.lower() or "failed" in line.lower()]
    return reasons[0].strip()[:300] if reasons else "llama.cpp gave no reason"
