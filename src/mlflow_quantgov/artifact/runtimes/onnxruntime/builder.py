"""onnxruntime-genai's model builder, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow_quantgov.errors import ArtifactError, require

BUILDER = "onnxruntime_genai.models.builder"
BUILDER_SECONDS = 3600


def build(folder: Path, target: Path, precision: str, options: Mapping[str, str] | None = None) -> None:
    """Make an ONNX model for the CPU from a safetensors folder; no network is reached, no code of the model's runs.

    Args:
        folder: Full-precision folder: config.json, *.safetensors, tokenizer.json.
        target: Folder to write to.
        precision: `fp32`, `int4`, `int8`, ...
        options: Extra options of the builder.

    Raises:
        ArtifactError: The builder fails; its last line is in the message.
        MissingExtraError: onnxruntime-genai, or what its builder needs, is not installed.
    """
    for module, extra in (("onnxruntime_genai", "onnx"), ("onnx_ir", "onnx"), ("torch", "transformers")):
        require(module, extra=extra, purpose="build an ONNX model from a full-precision folder")
    extra_options = {"hf_remote": "false", "hf_token": "false"} | dict(options or {})
    # One thread: in one of twenty processes of two, torch's first cosine was off by 1.5e-4 in a thread's half of the rotary
    # table (torch 2.13.0, measured), and a twin that differs from its parent proves nothing.
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory(prefix="quantgov-builder-") as scratch:
        command = [sys.executable, "-m", BUILDER, "-m", str(folder.resolve()), "-o", str(target.resolve())]
        command += ["-p", precision, "-e", "cpu", "-c", f"{scratch}/cache", "--extra_options"]
        command += [f"{name}={value}" for name, value in extra_options.items()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=BUILDER_SECONDS, env=os.environ | quiet, cwd=scratch
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(folder, f"it took longer than {BUILDER_SECONDS} seconds") from error
    if done.returncode or not (target / "model.onnx").is_file():
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["it says nothing"]
        raise _failed(folder, last[0][:200])
    template = folder / "chat_template.jinja"
    if template.is_file():
        shutil.copy(template, target / template.name)


def _failed(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"onnxruntime-genai's builder makes nothing of {folder.name}: {reason}.",
        why="No ONNX model was made.",
        fix=f"python -m {BUILDER} -m {folder} -o OUT -p fp32 -e cpu, and see what it says",
    )
