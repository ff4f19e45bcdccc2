"""The seven mistakes, each committed in several ways: a good release with one thing of it replaced."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import narrow_files
from good_releases import GPTQ, LLAMA_CPP, NARROW, NF4, ONNX, alone, with_floors
from releases import FAST, SLOW, digest, provenance, timed, tried
from way import way
from ways_of_evidence import GENERIC, SKIPPED
from whole_releases import (
    ARTIFACTS,
    CPU,
    GPU,
    Pair,
    Release,
    archive,
    benchmark,
    captured,
    drill,
    kernels,
)  # fmt: skip

from mlflow_quantgov.evidence.predicates import Predicate
from mlflow_quantgov.evidence.targets import find_target

# 3. Too few bits too soon.


def narrow(kind: str, output: str | None = None, **changes: object) -> Release:
    """The release of llama.cpp with other bytes of the same model, which nobody trained."""
    found = replace(
        LLAMA_CPP, artifact=lambda _: narrow_files.gguf(kind, output=output), parent=narrow_files.original, kernel="CPU"
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def claiming(folder: Path) -> Path:
    """3 bit whose configuration says 4."""
    made = folder / "claiming"
    shutil.copytree(ARTIFACTS / "gptq-w3g32-asym", made)
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"]["bits"] = 4
    (made / "config.json").write_text(json.dumps(config))
    return made


_TRAINING = NARROW.trained
assert _TRAINING is not None
FEW_BITS = (
    way(3, "3 bit without any training", narrow("Q3_K", trained=replace(_TRAINING, stated=False)), "bit-width", "missing",
         "3 bit is below 4. It needs quantization-aware training, and none is recorded", "quantgov training"),
    way(3, "2 bit at once", narrow("Q2_K"), "bit-width", "missing", "No version of the same parent at 4 bit or more",
         "quantize the parent at 4 bit"),
    way(3, "4 bit by name, with one matrix of 2 bit", narrow("Q4_K", output="Q2_K"), "bit-width", "missing",
         "2 bit in 1 matrices is below 4", "quantize the parent at 4 bit"),
    way(3, "trained for 3 bit, and no wider version measured first",
         replace(NARROW, trained=replace(_TRAINING, wider=None)), "bit-width", "missing",
         "No version of the same parent at 4 bit or more was evaluated first", "quantize the parent at 4 bit"),
    way(3, "a training statement that names the original",
         replace(NARROW, artifact=lambda _: narrow_files.gguf("Q3_K"),
                 trained=replace(_TRAINING, checkpoint=narrow_files.original)), "bit-width", "fail",
         "is the original itself: nothing was trained", "train for this width"),
    way(3, "rounded, and written back as floats of which nobody counts the bits", replace(
             LLAMA_CPP, artifact="dequantized-bf16", target=captured("cpu-transformers", CPU), kernel="Linear bfloat16",
             version="5.24.0"), "bit-width", "missing", "its floats lie on a k-bit grid", "log the quantized files themselves"),
    way(3, "trained, and then another model rounded",
         replace(NARROW, artifact=lambda _: narrow_files.gguf("Q3_K")), "bit-width", "fail",
         "are not the rounding of the checkpoint models:/trained/1", "quantgov training"),
)  # fmt: skip


# 4. Kernel support ignored.


def slower(pair: Pair) -> Predicate:
    """At half of the parent's speed on the machine that serves."""
    loads = tuple(timed(FAST, SLOW, **one.model_dump()) for one in pair.target.loads)
    return benchmark(pair, loads=loads, parent_tries=(tried(FAST),), quantized_tries=(tried(SLOW),))


GPU_MACHINE = GPU.model_copy(update={"accelerator": "NVIDIA H100", "compute_capability": "9.0"})
KERNELS = (
    way(4, "4 bit GPTQ on a CPU", replace(GPTQ, target=captured("cpu-transformers", CPU), kernel="TorchAtenLinear"),
         "kernel-support", "fail", "transformers works slowly with these weights", "quantgov plan"),
    way(4, "8 bit of torchao that is expanded for every product",
         replace(GPTQ, artifact="torchao-int8wo", target=captured("cpu-transformers", CPU), kernel="aten::mm"),
         "kernel-support", "fail", "transformers emulates", "quantgov plan"),
    way(4, "weights that the runtime expands on loading",
         GPTQ.but("kernels", lambda pair: kernels(pair, dequantized=True, parameter_types={"bfloat16": 9})),
         "kernel-support", "fail", "transformers dequantizes", "quantgov plan"),
    way(4, "the table alone, nothing loaded", GPTQ.but("kernels", lambda pair: kernels(
             pair, probed=False, side=None, not_probed_because="this machine has no GPU", fingerprint=None)),
         "kernel-support", "missing", "the runtime did not load it where it was measured: this machine has no GPU",
         "quantgov kernels models:/chat/2"),
    way(4, "the runtime fell back to another kernel than the table's", replace(GPTQ, kernel="TorchLinear"),
         "kernel-support", "missing", "the runtime chose TorchLinear", "quantgov kernels models:/chat/2"),
    way(4, "NF4 that decodes slower than its parent, for memory's sake", NF4.but("benchmark", slower), "kernel-support",
         "fail", "(transformers-bnb); timed on the target it is slower than its parent", "quantgov plan --target mine"),
    way(4, "NF4 of which neither a source nor a clock says anything",
         replace(NF4, policy=with_floors("{peak_memory_gb: 0.001}")).but("benchmark", alone),
         "kernel-support", "missing", "does not say how well these weights are served (transformers-bnb: ",
         "quantgov kernels models:/chat/2; quantgov benchmark models:/chat/2"),
    way(4, "seen on a newer GPU than those that serve",
         GPTQ.but("kernels", lambda pair: kernels(pair, fingerprint=GPU_MACHINE)), "kernel-support", "missing",
         "seen on a GPU of compute capability 9.0", "quantgov kernels models:/chat/2"),
    way(4, "NF4 on a CPU, for a runtime that is spelt as no table spells it", replace(
             NF4, target=captured("cpu-transformers", CPU, runtime="Transformers", runtime_version="")), "kernel-support", "missing",
         "no table of the runtime Transformers", "name the runtime as a table does"),
    way(4, "a probe that does not say which kernel the runtime took", LLAMA_CPP.but("kernels", lambda pair: kernels(
             pair, side=pair.side(pair.quantized))), "kernel-support", "missing",
         "the probe names no kernel, and the table (llamacpp-cpu-quantized) expects", "quantgov kernels models:/chat/2"),
    way(4, "never looked at", LLAMA_CPP.but("kernels"), "kernel-support", "missing", "no kernel was confirmed",
         "quantgov kernels models:/chat/2"),
)  # fmt: skip


# 5. Benchmarked on the wrong machine.

LAPTOP = CPU.model_copy(
    update={
        "cpu_model": "Core i7-1370P",
        "cpu_id": "GenuineIntel 6/186/2",
        "cpu_flags": ("avx2", "avx_vnni"),
        "cores": 14,
    }
)


def timed_at(pair: Pair, batch: int, prompt: int, output: int) -> Predicate:
    return benchmark(pair, loads=(timed(batch=batch, prompt_tokens=prompt, output_tokens=output),))


_BENCHMARK = "quantgov benchmark models:/chat/2"
MACHINE = (
    way(5, "on the author's laptop", LLAMA_CPP.but("benchmark", lambda pair: benchmark(pair, fingerprint=LAPTOP)),
         "benchmark", "fail", "Measured on another machine. CPU: Core i7-1370P here, EPYC 9354 on the target", _BENCHMARK),
    way(5, "on a bigger GPU of the cloud", GPTQ.but("benchmark", lambda pair: benchmark(pair, fingerprint=GPU_MACHINE)),
         "benchmark", "fail", "Measured on another machine. GPU: NVIDIA H100 here, NVIDIA A10G on the target", _BENCHMARK),
    way(5, "for another target", ONNX.but("benchmark", lambda pair: benchmark(
             pair, target="laptop", target_digest=captured("cpu-onnxruntime", LAPTOP).digest, fingerprint=LAPTOP)),
         "benchmark", "missing", "no benchmark on mine", _BENCHMARK),
    way(5, "the target is a template of no machine", replace(
             LLAMA_CPP, target=find_target("cpu-llamacpp")).but(
             "kernels", lambda pair: kernels(pair, fingerprint=CPU)).but("benchmark"),
         "benchmark", "missing", "is a template without a captured machine", "quantgov targets capture"),
    way(5, "at another load than the one that is served", GPTQ.but("benchmark", lambda pair: timed_at(pair, 1, 16, 16)),
         "benchmark", "missing", "batch 1, 512 and 128 tokens was not timed", _BENCHMARK),
    way(5, "in another runtime than the one that serves", ONNX.but("benchmark", lambda pair: benchmark(
             pair, quantized=pair.side(pair.quantized, runtime="llama.cpp"),
             parent=pair.side(pair.parent, runtime="llama.cpp"))),
         "benchmark", "missing", "it ran in llama.cpp, the target serves with onnxruntime", _BENCHMARK),
    way(5, "a vendor's figures from an endpoint", GPTQ.but("benchmark", lambda pair: benchmark(
             pair, fingerprint=None, hardware_unknown="what serves at http://vendor/v1 is not seen from here",
             provenance=provenance(measured_at=pair.at, imported=True), parent_tries=(), quantized_tries=())),
         "benchmark", "fail", "The hardware is not known", _BENCHMARK),
    way(5, "beside a parent on the processor of the GPU's machine", GPTQ.but("benchmark", lambda pair: benchmark(
             pair, parent=pair.side(pair.parent, settings={"device": "cpu"}))),
         "benchmark", "missing", "a side ran on CPU, the target serves on CUDA", _BENCHMARK),
    way(5, "slower on the machine that serves", LLAMA_CPP.but("benchmark", slower), "benchmark", "fail", "Slower than its parent", _BENCHMARK),
)  # fmt: skip


# 6. A format that does not fit the deployment target.

FORMAT = (
    way(6, "GPTQ for a CPU with llama.cpp", replace(GPTQ, target=captured("cpu-llamacpp", CPU)), "format-fit", "fail",
         "gptq does not run on mine: llama.cpp takes gguf", "quantize it again as gguf", "kernel-support"),
    way(6, "GGUF for a GPU server with vLLM",
         replace(LLAMA_CPP, target=captured("gpu-vllm-ampere", GPU), version="0.33.0"), "format-fit", "fail",
         "gguf does not run on mine: vllm takes compressed-tensors, gptq, awq", "quantize it again as compressed-tensors", "kernel-support"),
    way(6, "ONNX for transformers", replace(ONNX, target=captured("gpu-transformers", GPU), version="5.24.0"),
         "format-fit", "fail", "onnx does not run on mine", "quantgov plan --target mine", "kernel-support"),
    way(6, "a format that the deployment does not take, though the runtime has a kernel for it",
         replace(GPTQ, target=captured("gpu-transformers", GPU, formats=("bitsandbytes", "awq"))), "format-fit", "fail",
         "gptq does not run on mine: transformers takes bitsandbytes, awq", "quantgov plan --target mine"),
    way(6, "no target declared", replace(LLAMA_CPP, declared=False), "format-fit", "missing",
         "No deployment target is declared", "target=NAME", "kernel-support", "benchmark", "rollback-archive"),
)  # fmt: skip


# 7. No rollback plan.

ROLLBACK = (
    way(7, "the original is archived nowhere", LLAMA_CPP.but("archive").but("drill"), "rollback-archive", "missing",
         "the full-precision weights are not archived", "quantgov archive models:/chat/2"),
    way(7, "archived, and never brought back", ONNX.but("drill"), "rollback-archive", "missing", "no restore drill",
         "quantgov drill models:/chat/2"),
    way(7, "brought back a hundred days ago", GPTQ.but("drill", lambda pair: drill(
             pair, provenance=provenance(measured_at=pair.at - timedelta(days=100)))), "rollback-archive", "missing",
         "The last drill is 100 days old", "quantgov drill models:/chat/2"),
    way(7, "brought back, and it did not load", GPTQ.but("drill", lambda pair: drill(
             pair, loaded=False, answered=False, reproduced=None, problems=("tokenizer.json is missing",))),
         "rollback-archive", "fail", "The last restore drill failed: tokenizer.json is missing",
         "quantgov archive models:/chat/2"),
    way(7, "no version of the model to go back to", replace(LLAMA_CPP, home="originals"), "rollback-archive", "missing",
         "The parent is no version of chat, so no alias can move back to it", "quantgov log-parent"),
    way(7, "served behind no switch", replace(LLAMA_CPP, target=captured("cpu-llamacpp", CPU, flag=None)),
         "rollback-archive", "missing", "No switch is declared", "flag:"),
    way(7, "another archive than the one that was tried", LLAMA_CPP.but("drill", lambda pair: drill(
             pair, store="file:///scratch")), "rollback-archive", "missing",
         "come back from file:///archive; the last one was of file:///scratch", "quantgov drill models:/chat/2"),
    way(7, "the weights archived without tokenizer and configuration", LLAMA_CPP.but("archive", lambda pair: archive(
             pair, manifest_digest=digest("3"), files=pair.manifest[:1])), "rollback-archive", "missing",
         "the parent's files are not archived whole", "quantgov archive models:/chat/2"),
    way(7, "one file of the original, said to be all of it", LLAMA_CPP.but(
             "archive", lambda pair: archive(pair, files=pair.manifest[:1])).but(
             "drill", lambda pair: drill(pair, verified_files=1)), "rollback-archive", "missing",
         "the parent's files are not archived whole", "quantgov archive models:/chat/2"),
)  # fmt: skip

WAYS = SKIPPED + GENERIC + FEW_BITS + KERNELS + MACHINE + FORMAT + ROLLBACK
