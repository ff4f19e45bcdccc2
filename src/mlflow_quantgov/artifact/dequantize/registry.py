"""Which dequantizer reads which container. A new one is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow_quantgov.artifact.dequantize.auto_round import auto_round_matrices
from mlflow_quantgov.artifact.dequantize.awq import awq_matrices
from mlflow_quantgov.artifact.dequantize.bitsandbytes import bitsandbytes_matrices
from mlflow_quantgov.artifact.dequantize.compressed_tensors import compressed_matrices
from mlflow_quantgov.artifact.dequantize.fp8 import fp8_matrices
from mlflow_quantgov.artifact.dequantize.full_precision import plain_matrices
from mlflow_quantgov.artifact.dequantize.gguf import gguf_matrices
from mlflow_quantgov.artifact.dequantize.gptq import gptq_matrices
from mlflow_quantgov.artifact.dequantize.hqq import hqq_matrices
from mlflow_quantgov.artifact.dequantize.interface import Matrix, unreadable
from mlflow_quantgov.artifact.dequantize.mxfp4 import mxfp4_matrices
from mlflow_quantgov.artifact.dequantize.onnx import onnx_matrices
from mlflow_quantgov.artifact.dequantize.openvino import openvino_matrices
from mlflow_quantgov.artifact.dequantize.quanto import quanto_matrices
from mlflow_quantgov.artifact.dequantize.torchao import torchao_matrices
from mlflow_quantgov.artifact.folder import open_artifact
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.registry import reader_of
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.artifact.structure import stored_twice

_QUANTIZED: dict[str, Callable[[ArtifactFiles, Inspection], Iterator[Matrix]]] = {
    "auto-round": auto_round_matrices,
    "awq": awq_matrices,
    "bitsandbytes": bitsandbytes_matrices,
    "compressed-tensors": compressed_matrices,
    "fp8": fp8_matrices,
    "gguf": gguf_matrices,
    "gptq": gptq_matrices,
    "onnx": onnx_matrices,
    "openvino": openvino_matrices,
    "hqq": hqq_matrices,
    "mxfp4": mxfp4_matrices,
    "nvfp4": fp8_matrices,
    "quanto": quanto_matrices,
    "torchao": torchao_matrices,
}


def matrices(path: Path) -> dict[str, Matrix]:
    """Every weight of the model at a path by its Hugging Face name; nothing but headers is read yet.

    Raises:
        ArtifactError: The artifact cannot be inspected.
    """
    files = open_artifact(path)
    return matrices_of(files, reader_of(files).read(files))


def matrices_of(files: ArtifactFiles, facts: Inspection) -> dict[str, Matrix]:
    """The same for files that were opened and inspected.

    Raises:
        ArtifactError: Two tensors are the same weight.
    """
    reader = _QUANTIZED.get(facts.quantization.format, _without_reader)
    found: dict[str, Matrix] = {}
    for one in reader(files, facts):
        _add(found, one)
    used = {part for one in found.values() for part in one.parts}
    for one in plain_matrices(tensor for name, tensor in files.tensors.items() if name not in used):
        _add(found, one)
    return found


def _add(found: dict[str, Matrix], one: Matrix) -> None:
    if one.name in found:
        raise stored_twice(*(next(iter(each.parts), each.name) for each in (found[one.name], one)))
    found[one.name] = one


def _without_reader(files: ArtifactFiles, facts: Inspection) -> Iterator[Matrix]:
    """Quantized matrices of a container that nobody dequantizes yet; what stands below their names belongs to them."""
    name, problem = facts.quantization.format, f"nothing dequantizes {facts.quantization.format} yet"
    below: dict[str, list[str]] = {}
    for tensor in files.tensors:
        module, _, part = tensor.rpartition(".")
        if part != "bias":
            below.setdefault(module, []).append(tensor)
    for layer in facts.quantization.layers:
        parts = tuple(below.get(layer.name, ()))
        yield unreadable(f"{layer.name}.weight", layer.shape, name, parts, layer.bits, problem)
