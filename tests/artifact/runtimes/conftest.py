"""The shipped skills model, its twin and quantized files, made once per session."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.demo.models import SKILLS


@pytest.fixture(scope="session")
def skills_folder() -> Path:
    return SKILLS


@pytest.fixture(scope="session")
def skills_twin(skills_folder, tmp_path_factory) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin

    return gguf_twin(skills_folder, tmp_path_factory.mktemp("twin")).path


@pytest.fixture(scope="session")
def skills_q2(skills_twin, tmp_path_factory) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import quantize_gguf

    return quantize_gguf(skills_twin, tmp_path_factory.mktemp("q2") / "skills-Q2_K.gguf", "Q2_K").path


@pytest.fixture(scope="session")
def skills_onnx(skills_folder, tmp_path_factory) -> Path:
    """The skills model's fp32 twin for onnxruntime-genai, built and proved."""
    from mlflow_quantgov.artifact.runtimes.onnxruntime import onnx_twin

    for module in ("onnxruntime_genai", "onnx_ir", "torch", "transformers"):
        pytest.importorskip(module)
    return onnx_twin(skills_folder, tmp_path_factory.mktemp("onnx-twin")).path


@pytest.fixture(scope="session")
def skills_onnx_int4(skills_onnx, tmp_path_factory) -> Path:
    """The twin with its matrices quantized by onnxruntime to 4 bit, block 32, accuracy level 4."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    folder = tmp_path_factory.mktemp("onnx-int4") / "int4"
    shutil.copytree(skills_onnx, folder, ignore=shutil.ignore_patterns("*.onnx*"))
    quantizer = MatMulNBitsQuantizer(
        str(skills_onnx / "model.onnx"), bits=4, block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"), use_external_data_format=False)
    return folder


@dataclass(frozen=True)
class Decoder:
    """A hand-made decoder whose logits follow a formula: the running sum of embeddings, times a matrix."""

    folder: Path
    embedding: np.ndarray
    matrix: np.ndarray

    def logits(self, tokens: list[int]) -> np.ndarray:
        return np.cumsum(self.embedding[tokens], axis=0) @ self.matrix


@pytest.fixture
def decoder(skills_folder, tmp_path) -> Callable[..., Decoder]:
    """Makes one in the manner of optimum's exports, with or without past, its matrix stored in several ways."""
    pytest.importorskip("onnxruntime")
    count = itertools.count()

    def make(*, past: bool, weights: str = "float32", extra_input: str | None = None) -> Decoder:
        folder = tmp_path / f"decoder-{next(count)}"
        folder.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copy(skills_folder / name, folder / name)
        random = np.random.default_rng(1)
        embedding = random.normal(size=(258, 32)).astype(np.float32)
        matrix = random.normal(size=(32, 258)).astype(np.float32)
        _write_decoder(folder / "model.onnx", embedding, matrix, past, weights, extra_input)
        return Decoder(folder, embedding, matrix)

    return make


def _write_decoder(path, embedding, matrix, past, weights, extra_input) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 258])]
    stored = [numpy_helper.from_array(embedding, "embedding"), numpy_helper.from_array(np.array(1), "one")]
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["x"]),
        helper.make_node("CumSum", ["x", "one"], ["sums"]),
    ]
    hidden = "sums"
    if past:
        inputs.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "all"]))
        shape = ["batch", 1, "past_sequence_length", 32]
        inputs.append(helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, ["batch", 1, "all", 32]))
        stored.append(numpy_helper.from_array(np.array([2]), "positions"))
        nodes += [
            helper.make_node("Unsqueeze", ["x", "axes"], ["key"]),
            helper.make_node("Concat", ["past_key_values.0.key", "key"], ["present.0.key"], axis=2),
            helper.make_node("ReduceSum", ["past_key_values.0.key", "positions"], ["before"], keepdims=0),
            helper.make_node("Add", ["before", "sums"], ["h"]),
        ]
        stored.append(numpy_helper.from_array(np.array([1]), "axes"))
        hidden = "h"
    if extra_input:
        inputs.append(helper.make_tensor_value_info(extra_input, TensorProto.BOOL, [1]))
    if weights.startswith("int8-qdq"):
        scale = np.float32(np.abs(matrix).max() / 127)
        turned = weights.endswith("transposed")
        values = np.round((matrix.T if turned else matrix) / scale).astype(np.int8)
        stored += [numpy_helper.from_array(values, "matrix_q"), numpy_helper.from_array(scale.reshape(()), "scale")]
        nodes.append(helper.make_node("DequantizeLinear", ["matrix_q", "scale"], ["wide" if turned else "matrix"]))
        nodes += [helper.make_node("Transpose", ["wide"], ["matrix"], perm=[1, 0])] if turned else []
    else:
        stored.append(numpy_helper.from_array(matrix, "matrix"))
    nodes.append(helper.make_node("MatMul", [hidden, "matrix"], ["logits"]))
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    if weights == "int8-dynamic":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(str(path), str(path.with_suffix(".q")), op_types_to_quantize=["MatMul"])
        path.with_suffix(".q").replace(path)
