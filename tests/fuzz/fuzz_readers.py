"""A coverage-guided fuzzer of the binary readers: whatever the bytes, one clear error or an answer, in bounded memory.

Usage: python tests/fuzz/fuzz_readers.py {safetensors,gguf,onnx} [--keep] [-runs=500000] [options of libFuzzer]

Seeds are the headers of the real files in tests/data/artifacts, and tests/fuzz/corpus/READER. With `--keep`, what libFuzzer finds
interesting goes into that corpus. An input that breaks a reader is written beside it as crash-*, and becomes a test.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
ARTIFACTS = HERE.parent / "data" / "artifacts"
_SUFFIXES = {"safetensors": ".safetensors", "gguf": ".gguf", "onnx": ".onnx"}
_ADDRESS_SPACE = 4 << 30
"""Bytes; more is a MemoryError, and so a finding. libFuzzer's own limit would count the process that started this one."""
_LONGEST = 65536
"""Bytes of an input: headers are what is parsed, payloads only have to be there."""


def reader_of(name: str) -> Callable[[Path], object]:
    """The reader that a name stands for."""
    from mlflow_quantgov.artifact import tensors

    return {"safetensors": tensors.open_safetensors, "gguf": tensors.read_gguf, "onnx": tensors.read_onnx}[name]


def write_seeds(name: str, folder: Path) -> int:
    """Copy the real files of a container, cut to what a fuzzer can turn over; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(ARTIFACTS.rglob(f"*{_SUFFIXES[name]}"))
    for number, file in enumerate(files):
        data = file.read_bytes()
        (folder / f"seed-{number:03d}").write_bytes(data[:_LONGEST])
        if name == "safetensors":
            (folder / f"header-{number:03d}").write_bytes(data[8 : 8 + int.from_bytes(data[:8], "little")][:_LONGEST])
    return len(files)


def framed(data: bytes) -> bytes:
    """Where an input begins with `{`, a safetensors file with it as its header and 4 KB of payload; else the input itself.

    A length that fits is what a mutation of raw bytes hardly ever finds, and behind it lies most of the reader.
    """
    return len(data).to_bytes(8, "little") + data + bytes(4096) if data[:1] == b"{" else data


def main() -> None:
    """Fuzz one reader."""
    import atheris

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    name, options = sys.argv[1], [one for one in sys.argv[2:] if one != "--keep"]
    with atheris.instrument_imports(include=["mlflow_quantgov.artifact"]):
        from mlflow_quantgov.errors import ArtifactError

        read = reader_of(name)
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="quantgov-fuzz-", dir=memory if memory.is_dir() else None)
    scratch = Path(folder) / f"input{_SUFFIXES[name]}"

    def one_input(data: bytes) -> None:
        scratch.write_bytes(framed(data) if name == "safetensors" else data)
        try:
            read(scratch)
        except ArtifactError:
            return

    corpus, found = HERE / "corpus" / name, Path(tempfile.mkdtemp(prefix="quantgov-found-"))
    seeds = Path(tempfile.mkdtemp(prefix="quantgov-seeds-"))
    write_seeds(name, seeds)
    corpus.mkdir(parents=True, exist_ok=True)
    # libFuzzer writes into the first folder.
    folders = [corpus, seeds] if "--keep" in sys.argv else [found, corpus, seeds]
    limits = [
        f"-max_len={_LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=0",
        f"-artifact_prefix={HERE}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, *options, *map(str, folders)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
