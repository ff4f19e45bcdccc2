"""A logged model of each runtime answers through qg.load_model, mlflow.pyfunc, and `mlflow models serve`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml
from packaging.requirements import Requirement

import mlflow_quantgov as qg
from mlflow_quantgov.demo.server import free_port
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.flavor.environment import default_requirements

PROMPTS = ["c:kettle=", "r:abcd="]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def gguf_q8(skills: Path, scratch: Path) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    twin = gguf_twin(skills, scratch / "twin").path
    return quantize_gguf(twin, scratch / "skills-Q8_0.gguf", "Q8_0").path


def bitsandbytes_int8(skills: Path, scratch: Path) -> Path:
    pytest.importorskip("bitsandbytes")
    transformers = pytest.importorskip("transformers")
    config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    return _quantized_by_transformers(skills, scratch, config)


def torchao_int8(skills: Path, scratch: Path) -> Path:
    quantization = pytest.importorskip("torchao.quantization")
    transformers = pytest.importorskip("transformers")
    return _quantized_by_transformers(skills, scratch, transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig()))


def _quantized_by_transformers(skills: Path, scratch: Path, config: object) -> Path:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        skills, quantization_config=config, device_map="cpu", dtype="bfloat16"
    )
    model.save_pretrained(scratch / "made")
    for name in TOKENIZER:
        shutil.copy(skills / name, scratch / "made" / name)
    return scratch / "made"


def compressed_int8(skills: Path, scratch: Path) -> Path:
    """compressed-tensors' W8A8: one scale per output channel, round to nearest; transformers expands it on a CPU."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("compressed_tensors")
    safetensors = pytest.importorskip("safetensors.torch")
    folder = scratch / "made"
    shutil.copytree(skills, folder)
    tensors = {}
    for name, weight in safetensors.load_file(skills / "model.safetensors").items():
        tensors[name] = weight
        if "_proj." in name:
            scale = weight.float().abs().amax(dim=1, keepdim=True) / 127
            tensors[name] = (weight.float() / scale).round().to(torch.int8)
            tensors[name.replace(".weight", ".weight_scale")] = scale.to(torch.bfloat16)
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    inputs = weights | {"strategy": "token", "dynamic": True}
    config = json.loads((skills / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def genai_int4(skills: Path, scratch: Path) -> Path:
    """onnxruntime-genai's folder, its matrices quantized by onnxruntime."""
    for module in ("onnxruntime_genai", "onnx_ir", "torch", "transformers"):
        pytest.importorskip(module)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    from mlflow_quantgov.artifact.runtimes.onnxruntime import onnx_twin

    twin = onnx_twin(skills, scratch / "twin").path
    folder = scratch / "made"
    shutil.copytree(twin, folder, ignore=shutil.ignore_patterns("*.onnx*"))
    quantizer = MatMulNBitsQuantizer(str(twin / "model.onnx"), bits=4, block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"), use_external_data_format=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "target", "requires"),
    [
        (gguf_q8, "cpu-llamacpp", "xllamacpp=="),
        (bitsandbytes_int8, "cpu-transformers", "bitsandbytes=="),
        (torchao_int8, "cpu-transformers", "torchao=="),
        (compressed_int8, "cpu-transformers", "compressed-tensors=="),
        (genai_int4, "cpu-onnxruntime", "onnxruntime-genai=="),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_logged_model_answers(
    client: mlflow.MlflowClient,
    skills: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], Path],
    target: str,
    requires: str,
) -> None:
    parent = qg.log_parent(skills, name="skills", registered_model_name="skills")
    made = make(skills, tmp_path)
    info = qg.log_model(
        made, name="quantized", parent=f"models:/skills/{parent.registered_model_version}", target=target,
        registered_model_name="chat",
    )  # fmt: skip
    uri = f"models:/chat/{info.registered_model_version}"
    loaded = qg.load_model(uri)
    assert loaded.runtime.facts().dequantized is (make is compressed_int8)
    answers = loaded.generate(PROMPTS, max_tokens=8)
    loaded.close()
    assert answers[0] == "kettle"
    served = mlflow.pyfunc.load_model(uri)
    assert served.predict(PROMPTS, params={"max_tokens": 8}) == answers
    root = Path(mlflow.artifacts.download_artifacts(uri))
    assert requires in (root / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "target"),
    [
        (gguf_q8, "cpu-llamacpp"),
        (bitsandbytes_int8, "cpu-transformers"),
        (torchao_int8, "cpu-transformers"),
        (genai_int4, "cpu-onnxruntime"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_served_model_answers_over_http(
    client: mlflow.MlflowClient, skills: Path, tmp_path: Path, make: Callable[[Path, Path], Path], target: str
) -> None:
    """`mlflow models serve` in this environment, asked as any client asks."""
    qg.log_parent(skills, name="skills", registered_model_name="skills")
    info = qg.log_model(make(skills, tmp_path), name="q", parent="models:/skills/1", target=target)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", info.model_uri, "--env-manager", "local"]
    log = (tmp_path / "serve.log").open("wb")
    # MLflow starts `uvicorn` by its name: it lies beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        stdout=log, stderr=log, env=os.environ | {"PATH": path},
    )  # fmt: skip
    try:
        _wait_for(server, f"http://127.0.0.1:{port}/ping", tmp_path / "serve.log")
        body = json.dumps({"inputs": PROMPTS, "params": {"max_tokens": 8}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            assert json.load(answer)["predictions"] == ["kettle", "dcba"]
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.mark.slow
def test_endpoints_are_evaluated_in_place_of_the_files(
    client: mlflow.MlflowClient, skills: Path, tmp_path: Path
) -> None:
    """Both sides served by xllamacpp, described as the how-to describes them."""
    import xllamacpp

    from mlflow_quantgov.demo.models import SKILLS_TASKS

    qg.log_parent(skills, name="skills", registered_model_name="skills")
    made = gguf_q8(skills, tmp_path)
    qg.log_model(made, name="q", parent="models:/skills/1", target="cpu-llamacpp", registered_model_name="chat")
    page = Path(__file__).parents[2] / "docs" / "how-to" / "attach-evidence.md"
    example = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)[0])
    assert example.pop("api_key_env") and example.pop("model")
    servers, described = [], []
    for name, path in (("parent", next((tmp_path / "twin").glob("*.gguf"))), ("quantized", made)):
        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.n_ctx, parameters.port = str(path), 1024, 0
        parameters.cpuparams.n_threads, parameters.warmup = 2, False
        servers.append(xllamacpp.Server(parameters))
        described.append(tmp_path / f"{name}.yaml")
        described[-1].write_text(yaml.safe_dump(example | {"url": f"{servers[-1].listening_address}/v1"}))
    statement = qg.evaluate("models:/chat/1", SKILLS_TASKS, served=(described[0], described[1]), limit=2)
    found = statement.content()
    assert isinstance(found, TaskEval) and found.provenance.imported
    assert {found.parent.runtime, found.quantized.runtime} == {"openai"}
    assert found.parent.settings["url"] != found.quantized.settings["url"]
    del servers


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the server answers; its log where it ends before."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-3000:])


def test_requirements_follow_runtime_and_format() -> None:
    plain = default_requirements("transformers", "full-precision")
    assert not any("+" in line for line in plain)
    added = {Requirement(line).name for line in default_requirements("transformers", "gptq")}
    assert added - {Requirement(line).name for line in plain} == {"gptqmodel", "optimum"}
    # Of what is not installed here, the oldest version that loads such models is named.
    for format in ("hqq", "quanto", "auto-round", "gptq"):
        assert all(Requirement(line).specifier for line in default_requirements("transformers", format)[1:])
    assert any(line.startswith("onnx-ir") for line in default_requirements("onnxruntime", "full-precision"))
    assert default_requirements("openai") == default_requirements(None)
