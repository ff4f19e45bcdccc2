"""Whole benchmarks of the skills model in every runtime, and of two servers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure import benchmark
from mlflow_quantgov.evidence.measure.benchmark.heat import Heat, find_fastest
from mlflow_quantgov.evidence.measure.benchmark.sides import Sides
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.predicates.benchmark_v3 import SideName
from mlflow_quantgov.evidence.targets import Target, TargetLoad, find_target

pytestmark = pytest.mark.slow
WEIGHTS: dict[str, Any] = {"parent_weights": f"sha256:{'b' * 64}", "quantized_weights": f"sha256:{'a' * 64}"}
SEVEN = benchmark.Effort(rounds=7)


def short(name: str, **changes: Any) -> Target:
    """A shipped target with loads that the small model runs in no time."""
    return find_target(name).model_copy(update={"loads": (TargetLoad(prompt_tokens=16, output_tokens=4),)} | changes)


@pytest.fixture(scope="module")
def q8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
    from mlflow_quantgov.demo.models import SKILLS

    folder = tmp_path_factory.mktemp("q8")
    return quantize_gguf(gguf_twin(SKILLS, folder).path, folder / "Q8_0.gguf", "Q8_0").path


def checked(found: Benchmark) -> dict[str, Any]:
    """The summary, which follows from the records; both sides took memory of their own."""
    found.verify_summary()
    assert Benchmark.model_validate_json(found.model_dump_json()) == found
    assert found.fingerprint == this_machine() and not found.provenance.imported
    for one in (found.parent_resources, found.quantized_resources):
        assert one.peak_bytes and one.baseline_bytes and one.weight_bytes and one.load_seconds
        assert one.peak_bytes > one.baseline_bytes and one.device_bytes is None
    return found.stated()


def test_llama_cpp_runs_the_parent_as_its_fastest_lossless_twin(skills: Path, q8: Path, tmp_path: Path) -> None:
    loads = (TargetLoad(prompt_tokens=16, output_tokens=4), TargetLoad(batch=4, prompt_tokens=32, output_tokens=8))
    said: list[tuple[str, float]] = []
    found = benchmark.run(
        skills, q8, short("cpu-llamacpp", loads=loads), effort=SEVEN, cache=tmp_path, **WEIGHTS,
        progress=lambda words, fraction: said.append((words, fraction)),
    )  # fmt: skip
    summary = checked(found)
    names = [one.configuration for one in found.parent_tries]
    assert (
        names[0].startswith("BF16 twin, ") and "F16 twin" in names and any(one.startswith("F32 twin") for one in names)
    )
    lossy = next(one for one in found.parent_tries if one.configuration == "F16 twin")
    assert "not lossless" in str(lossy.failed) and not lossy.speeds
    assert found.parent.twin == "lossless-twin" and found.quantized.twin == "own-files"
    chosen = next(one for one in found.parent_tries if one.chosen)
    assert found.parent.settings["threads"] == chosen.settings["threads"]
    assert found.parent.settings["twin_dtype"] == chosen.settings["twin_dtype"]
    assert [load["rounds"] for load in summary["loads"]] == [7, 7]
    assert any("rounds" in words and "take about" in words for words, _ in said)
    assert all(0 <= fraction <= 1 for _, fraction in said) and said[-1] == ("done", 1.0)


def test_a_parent_that_is_a_gguf_file_is_tried_in_every_type_that_holds_it(
    skills: Path, q8: Path, tmp_path: Path
) -> None:
    """A file in BF16 is slow where the processor has no such instructions, and any version would look fast beside it."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin

    parent = gguf_twin(skills, tmp_path / "made").path
    found = benchmark.run(parent, q8, short("cpu-llamacpp"), effort=SEVEN, cache=tmp_path / "cache", **WEIGHTS)
    checked(found)
    names = [one.configuration for one in found.parent_tries]
    assert names[0].startswith("as stored, ") and any(one.startswith("F32 twin, ") for one in names)
    assert {one.configuration.split(",")[0] for one in found.quantized_tries} == {"as stored"}


def test_transformers_tries_every_type_that_holds_the_weights(skills: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig

    config = transformers.TorchAoConfig(Int8WeightOnlyConfig())
    model = transformers.AutoModelForCausalLM.from_pretrained(skills, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(tmp_path / "int8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(skills / name, tmp_path / "int8")
    found = benchmark.run(skills, tmp_path / "int8", short("cpu-transformers"), effort=SEVEN, **WEIGHTS)
    checked(found)
    ran = {str(one.settings["dtype"]) for one in found.parent_tries if one.speeds}
    assert ran == {"bfloat16", "float32"}
    assert found.parent.settings["compute_dtype"] in ran and found.quantized.dequantized is False


def test_onnxruntime_runs_the_parent_as_an_fp32_twin(skills: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    pytest.importorskip("onnx_ir")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    from mlflow_quantgov.artifact.runtimes.onnxruntime import onnx_twin

    twin = onnx_twin(skills, tmp_path).path
    shutil.copytree(twin, tmp_path / "int4", ignore=shutil.ignore_patterns("*.onnx*"))
    quantizer = MatMulNBitsQuantizer(
        str(twin / "model.onnx"), bits=4, block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(tmp_path / "int4" / "model.onnx"), use_external_data_format=False)
    found = benchmark.run(skills, tmp_path / "int4", short("cpu-onnxruntime"), effort=SEVEN, cache=tmp_path, **WEIGHTS)
    checked(found)
    assert found.parent_tries[0].configuration.startswith("F32 twin, ") and found.parent.twin == "lossless-twin"


def test_a_parent_that_does_not_load_is_recorded_and_the_version_timed_alone(
    skills: Path, q8: Path, tmp_path: Path
) -> None:
    shutil.copytree(skills, tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    found = benchmark.run(tmp_path / "parent", q8, short("cpu-llamacpp"), effort=SEVEN, **WEIGHTS)
    found.verify_summary()
    lost = found.parent_not_loaded
    assert lost is not None and lost.cause == "refused" and "cannot be read" in lost.error
    assert lost.free_memory_bytes > 0 and found.parent.behaviour is None
    summary = found.stated()
    assert summary["outcome"] is None and summary["loads"][0]["decode"]["parent"] is None
    assert summary["loads"][0]["decode"]["quantized_low"] > 0 and summary["memory_ratio"] is None


def test_a_version_that_does_not_load_measures_nothing(skills: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ArtifactError, match=r"does not load bad\.gguf"):
        benchmark.run(skills, tmp_path / "bad.gguf", short("cpu-llamacpp"), effort=SEVEN, **WEIGHTS)


def test_a_load_that_no_context_holds_is_whoevers_asked(skills: Path, q8: Path) -> None:
    loads = (TargetLoad(prompt_tokens=5000),)
    with pytest.raises(UsageError, match="The load takes 5032 tokens"):
        benchmark.run(skills, q8, short("cpu-llamacpp", loads=loads), effort=SEVEN, **WEIGHTS)


def test_models_that_do_not_fit_together_are_loaded_in_turn(skills: Path, q8: Path, tmp_path: Path) -> None:
    """And a wider type that does not fit at all is left out, once another one has run."""
    target = short("cpu-llamacpp")
    tight: dict[str, Any] = {"cores": 1, "free_bytes": 4_000_000, "cache": tmp_path, "report": lambda words: None}
    heats: dict[SideName, Heat] = {
        "parent": find_fastest(LlamaCppAdapter(), skills, target, **tight),
        "quantized": find_fastest(LlamaCppAdapter(), q8, target, **tight),
    }
    wide = next(one for one in heats["parent"].tries if one.configuration == "F32 twin")
    assert "its weights take" in str(wide.failed) and "are free" in str(wide.failed)
    with Sides("llama.cpp", heats, together=False) as sides:
        for name in ("parent", "quantized", "quantized", "parent"):
            sample = sides.time(name, target.loads[0])
            assert sample is not None and sample.decode > 0
            assert list(sides.loaded) == [name]
        found = sides.resources()
    assert all(one.peak_bytes and one.baseline_bytes and one.load_seconds for one in found.values())


@pytest.fixture(scope="module")
def servers(q8: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """xllamacpp's OpenAI-compatible server with the parent's twin, and another with the 8-bit file, described."""
    import xllamacpp

    folder = tmp_path_factory.mktemp("served")
    running, files = [], []
    for name, path in (("parent", next(q8.parent.glob("twin-*.gguf"))), ("quantized", q8)):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel, parameters.port = 1024, 4, 0
        parameters.cpuparams.n_threads = 1
        parameters.warmup = False
        running.append(xllamacpp.Server(parameters))
        described = {"schema": "quantgov/endpoint/v1", "url": f"{running[-1].listening_address}/v1"}
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(described))
    yield files[0], files[1]
    running.clear()


def test_endpoints_are_timed_request_by_request_and_labelled_imported(servers: tuple[Path, Path]) -> None:
    target = short("endpoint-openai", loads=(TargetLoad(batch=3, prompt_tokens=16, output_tokens=4),))
    found = benchmark.run_served(*servers, target, effort=SEVEN, **WEIGHTS)
    found.verify_summary()
    assert found.provenance.imported and found.parent.twin == "imported" and found.quantized.dequantized is None
    assert found.fingerprint == this_machine()
    load = found.stated()["loads"][0]
    assert load["request_ms"]["quantized"]["samples"] == 21 and load["request_ms"]["quantized"]["p95"] is not None
    assert all(len(one.quantized.requests) == 3 for one in found.loads[0].rounds)
    assert all(request.first <= request.last for one in found.loads[0].rounds for request in one.quantized.requests)
    assert found.stated()["memory_ratio"] is None


def test_one_endpoint_is_not_compared_with_itself(servers: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="Both descriptions name"):
        benchmark.run_served(servers[0], servers[0], short("endpoint-openai"), effort=SEVEN, **WEIGHTS)


def test_the_hardware_behind_an_address_of_another_machine_is_not_known(
    servers: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same server, reached by the address that this machine has in its network."""
    from mlflow_quantgov.artifact.runtimes.endpoint.description import Endpoint

    assert Endpoint("http://[::1]:1/v1").is_on_this_machine and Endpoint("http://localhost:1/v1").is_on_this_machine
    for far in ("http://10.0.0.7/v1", "http://models.example/v1", "http://localhost.example/v1"):
        assert not Endpoint(far).is_on_this_machine
    monkeypatch.setattr(Endpoint, "is_on_this_machine", False)
    found = benchmark.run_served(*servers, short("endpoint-openai"), effort=SEVEN, **WEIGHTS)
    assert found.fingerprint is None and "is not seen from here" in str(found.hardware_unknown)
