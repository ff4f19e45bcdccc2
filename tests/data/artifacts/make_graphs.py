"""Makes the ONNX and OpenVINO artifacts of this folder: `python tests/data/artifacts/make_graphs.py [NAME ...]`.

All but the classifiers are made from `parent-bf16` (see `make.py`), or from `parent-tied`, which is made here. It needs onnx, onnxruntime, onnxruntime-genai, openvino,
nncf, skl2onnx, torch and transformers, in an environment of their own: nothing of this package imports them. Made with
torch 2.13.0, transformers 5.17.0, onnx 1.23.2, onnxruntime 1.32.0, onnxruntime-genai 0.18.0, openvino 2026.4.1 and nncf 3.4.0.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PARENT = HERE / "parent-bf16"
TOKENS = 128


def load_parent(whole: bool = False) -> Any:
    """The parent in float32, ready to be traced.

    Args:
        whole: Traced as it is. Otherwise attention knows neither mask nor positions, which keeps a graph small; the
            matrices, their names and what a quantizer makes of them are the same.
    """
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(PARENT, dtype=torch.float32, attn_implementation="eager").eval()

    def attend(self: Any, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        batch, length, _width = hidden_states.shape
        query = self.q_proj(hidden_states).view(batch, length, 4, 16).transpose(1, 2)
        key = self.k_proj(hidden_states).view(batch, length, 2, 16).transpose(1, 2)
        value = self.v_proj(hidden_states).view(batch, length, 2, 16).transpose(1, 2)
        key, value = torch.cat((key, key), 1), torch.cat((value, value), 1)
        mixed = torch.softmax(query @ key.transpose(2, 3) / 4, -1) @ value
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, 64)), None

    def run(self: Any, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lm_head = model.model, model.lm_head

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
            if attention_mask is None:
                return self.lm_head(self.model(input_ids))
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return self.lm_head(found.last_hidden_state)

    if not whole:
        type(model.model).forward = run
        type(model.model.layers[0].self_attn).forward = attend
    return Traced()


def export(path: Path, *, whole: bool = False, half: bool = False) -> Path:
    """Torch's tracing exporter, whose names are those of optimum's files."""
    import torch

    model = load_parent(whole)
    inputs = ["input_ids", "attention_mask"] if whole else ["input_ids"]
    torch.onnx.export(
        model.half() if half else model, (torch.ones((1, 8), dtype=torch.long),) * len(inputs), path, dynamo=False,
        opset_version=17 if half else 21, input_names=inputs, output_names=["logits"],
        dynamic_axes={one: {0: "batch", 1: "sequence"} for one in (*inputs, "logits")},
    )  # fmt: skip
    return path


def make_half() -> None:
    """Plain float16, by torch."""
    export(start("onnx-f16") / "model.onnx", half=True)


def make_dynamic() -> None:
    """Dynamic int8, by onnxruntime: MatMulInteger with activations that are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with exported(whole=True) as path:
        quantize_dynamic(path, start("onnx-int8-dynamic") / "model_quantized.onnx", weight_type=QuantType.QInt8)


def make_static() -> None:
    """Static int8, by onnxruntime: as QDQ per channel and as QOperator per tensor."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            numbers = np.random.default_rng(0)
            self.rows = [numbers.integers(0, TOKENS, (1, 8)) for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            if not self.rows:
                return None
            return {"input_ids": self.rows.pop()}

    for name, form, per_channel in (
        ("onnx-int8-qdq", QuantFormat.QDQ, True),
        ("onnx-int8-qoperator", QuantFormat.QOperator, False),
    ):
        with exported() as path:
            quantize_static(
                path, start(name) / "model.onnx", Reader(), quant_format=form, per_channel=per_channel,
                weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"],
            )  # fmt: skip


def make_nbits() -> None:
    """4 bit in blocks, by onnxruntime: MatMulNBits with zero points and a quantized embedding; QDQ, symmetric."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    from onnxruntime.quantization.quant_utils import QuantFormat

    for name, form, symmetric, ops in (
        ("onnx-int4-nbits", QuantFormat.QOperator, False, ("MatMul", "Gather")),
        ("onnx-int4-qdq", QuantFormat.QDQ, True, ("MatMul",)),
    ):
        with exported() as path:
            import onnx

            config = DefaultWeightOnlyQuantConfig(
                block_size=32, is_symmetric=symmetric, quant_format=form, op_types_to_quantize=ops
            )
            quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
            quantizer.process()
            quantizer.model.save_model_to_file(str(start(name) / "model.onnx"), False)


def make_genai() -> None:
    """4 bit with weights beside the graph, by the builder of onnxruntime-genai."""
    build_genai(PARENT, "onnx-genai-int4")


def build_genai(parent: Path, name: str, *options: str) -> None:
    """Run the builder on a parent, whose tokenizer is made up."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "parent"
        shutil.copytree(parent, source)
        words = Tokenizer(models.WordLevel({f"t{index}": index for index in range(TOKENS)}, unk_token="t0"))
        PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t1", eos_token="t2").save_pretrained(source)
        output = Path(scratch) / "genai"
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        subprocess.run(
            [*builder, "-m", source, "-o", output, "-p", "int4", "-e", "cpu", "-c", f"{scratch}/cache",
             "--extra_options", "int4_block_size=32", *options],
            check=True,
        )  # fmt: skip
        folder = start(name)
        for part in ("model.onnx", "model.onnx.data", "genai_config.json"):
            shutil.copy(output / part, folder / part)


def make_tied() -> None:
    """A parent with an output matrix that is its embedding, biases, and norms that are not all ones; its 4 bit copies."""
    import nncf
    import openvino
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=TOKENS, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
        attn_implementation="eager", initializer_range=0.05,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, one in model.named_parameters():
        if name.endswith(("norm.weight", ".bias")):
            one.data = torch.randn_like(one) / 5 + name.endswith("norm.weight")
    model.bfloat16().save_pretrained(start("parent-tied"))
    build_genai(HERE / "parent-tied", "onnx-genai-tied", "shared_embeddings=true")

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lm_head = model.model, model.lm_head

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
            return self.lm_head(found.last_hidden_state)

    model.float()
    example = {name: torch.ones((1, 8), dtype=torch.long) for name in ("input_ids", "attention_mask")}
    graph = openvino.convert_model(Traced(), example_input=example)
    found = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, ratio=1.0)
    openvino.save_model(found, start("openvino-int4-tied") / "openvino_model.xml", compress_to_fp16=True)


def make_classifiers() -> None:
    """No language models: scikit-learn's logistic regression, and a small convolutional network, also in int8."""
    import onnx
    import torch
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    fitted = to_onnx(LogisticRegression(max_iter=300).fit(rows, labels), rows[:1])
    onnx.save(fitted, start("onnx-sklearn") / "model.onnx")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(3), torch.nn.Flatten(), torch.nn.Linear(128, 10)
    )
    plain = start("onnx-cnn") / "model.onnx"
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 1, 16, 16),),
        plain,
        dynamo=False,
        input_names=["image"],
        output_names=["scores"],
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = [np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"image": self.rows.pop()} if self.rows else None

    quantize_static(plain, start("onnx-cnn-int8") / "model.onnx", Reader())


def make_openvino() -> None:
    """Weight-only 4 bit and NF4, and int8 with activations, by openvino and nncf."""
    import nncf
    import openvino
    import torch

    example = {"input_ids": torch.ones((1, 8), dtype=torch.long)}

    def converted() -> Any:
        return openvino.convert_model(load_parent(), example_input=example)

    modes = nncf.CompressWeightsMode
    grouped = {"group_size": 32, "ratio": 1.0, "all_layers": True}
    for name, settings in (
        ("openvino-int4-asym", {"mode": modes.INT4_ASYM, **grouped}),
        ("openvino-nf4", {"mode": modes.NF4, **grouped}),
        ("openvino-nvfp4", {"mode": modes.NVFP4, "ratio": 1.0, "all_layers": True}),
    ):
        model = nncf.compress_weights(converted(), **settings)
        openvino.save_model(model, start(name) / "openvino_model.xml", compress_to_fp16=True)
        claim(name)
    numbers = np.random.default_rng(0)
    data = [{"input_ids": numbers.integers(0, TOKENS, (1, 8))} for _ in range(4)]
    model = nncf.quantize(converted(), nncf.Dataset(data), model_type=nncf.ModelType.TRANSFORMER, subset_size=4)
    openvino.save_model(model, start("openvino-int8-static") / "openvino_model.xml", compress_to_fp16=True)
    claim("openvino-int8-static")


def claim(name: str) -> None:
    """The parent's config.json beside the graph, as optimum puts it there."""
    config = json.loads((PARENT / "config.json").read_text())
    (HERE / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@contextmanager
def exported(whole: bool = False) -> Iterator[Path]:
    """A float32 file in a temporary folder, prepared the way onnxruntime asks for."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch:
        plain, ready = Path(scratch) / "model.onnx", Path(scratch) / "ready.onnx"
        quant_pre_process(export(plain, whole=whole), ready, skip_symbolic_shape=True, skip_optimization=True)
        yield ready


def start(name: str) -> Path:
    """An empty folder."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


MAKERS: dict[str, Callable[[], None]] = {
    "half": make_half,
    "dynamic": make_dynamic,
    "static": make_static,
    "nbits": make_nbits,
    "genai": make_genai,
    "tied": make_tied,
    "classifiers": make_classifiers,
    "openvino": make_openvino,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or MAKERS:
        MAKERS[wanted]()
