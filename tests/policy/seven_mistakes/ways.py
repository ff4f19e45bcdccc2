"""The seven mistakes, each committed in several ways: a good release with one thing of it replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import narrow_files
from calibration_files import assessed, code, encyclopedia, messages, questions, task_folder, written
from good_releases import GPTQ, LLAMA_CPP, NARROW, NF4, ONNX, alone, with_floors
from releases import FAST, SLOW, digest, provenance, timed, tried
from whole_releases import (
    ARTIFACTS,
    CAPABILITIES,
    CPU,
    GPU,
    Pair,
    Release,
    archive,
    asked,
    benchmark,
    captured,
    drill,
    evaluated,
    kernels,
)  # fmt: skip

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates import Answer, Calibration, Fidelity, Predicate, TaskEval
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord
from mlflow_quantgov.evidence.targets import find_target
from mlflow_quantgov.policy.decision import Outcome

MISTAKES = {
    1: "Task-level evaluation skipped, perplexity trusted alone",
    2: "Generic calibration data",
    3: "Too few bits too soon",
    4: "Kernel support ignored",
    5: "Benchmarked on the wrong machine",
    6: "A format that does not fit the deployment target",
    7: "No rollback plan",
}


@dataclass(frozen=True)
class Way:
    """One way to commit a mistake, and what it is refused with."""

    mistake: int
    name: str
    release: Release
    check: str
    outcome: Outcome
    words: str
    """What the reason says."""
    fix: str
    """What the remedy says."""
    also: tuple[str, ...] = ()
    """Checks that cannot but refuse too."""


def _way(
    mistake: int, name: str, release: Release, check: str, outcome: Outcome, words: str, fix: str, *also: str
) -> Way:
    return Way(mistake, name, release, check, outcome, words, fix, also)


# 1. Task-level evaluation skipped.


def perplexity(pair: Pair) -> Fidelity:
    """The parent's perplexity of 7.39 rose to 7.54, which looks like nothing."""
    document = DocumentRecord(
        id=digest("9"), tokens=2000, parent_nll=4000, quantized_nll=4040, kl=0, kl_max=0, same_top=1950, identical=0,
        kl_counts=((0, 2000),),
    )  # fmt: skip
    return Fidelity.measured(**pair.both, data=digest("9"), settings={}, documents=(document,))


def with_lost(pair: Pair) -> TaskEval:
    """Nine hundred easy items on which nothing is lost, and one capability that is."""
    easy = asked("multi-step-reasoning", items=900, failed=20, task="easy")
    return evaluated(pair, easy, asked("instruction-following"), asked("edge-cases", lost=60))


def choosing(pair: Pair) -> TaskEval:
    """Every capability by four choices that are scored, and nothing is ever written."""
    return evaluated(pair, *(asked(name, output_type="multiple_choice", metric="acc") for name in CAPABILITIES))


def likelihood(pair: Pair) -> TaskEval:
    """How likely the reference answers are, as a task: a perplexity under another name."""
    tasks = []
    for name in CAPABILITIES:
        one = asked(name, output_type="loglikelihood", metric="answer_probability")
        items = tuple(
            item.model_copy(update={"parent": Answer(score=0.41), "quantized": Answer(score=0.405)})
            for item in one.items
        )
        tasks.append(one.model_copy(update={"items": items}))
    return evaluated(pair, *tasks)


def one_for_all(pair: Pair) -> TaskEval:
    """One easy task, handed in three times under the names of three capabilities."""
    easy = asked("edge-cases")
    return evaluated(pair, *(easy.model_copy(update={"task": f"our-{one}", "capability": one}) for one in CAPABILITIES))


def one_by_three_metrics(pair: Pair) -> TaskEval:
    """One easy task and its scores, thrice, each time with a metric of another name."""
    named = zip(CAPABILITIES, ("exact_match", "acc", "strict_match"), strict=True)
    easy = asked("edge-cases")
    return evaluated(
        pair, *(easy.model_copy(update={"task": one, "capability": one, "metric": by}) for one, by in named)
    )


def upwards(pair: Pair) -> TaskEval:
    """A rate of errors in place of a score: the more, the better it looks."""
    tasks = []
    for name in CAPABILITIES:
        one = asked(name, metric="error_rate", higher_is_better=False)
        wrong = (Answer(score=0, output="x"), Answer(score=1, output="y"))
        items = tuple(
            item.model_copy(update={"parent": wrong[0], "quantized": wrong[number % 2]})
            for number, item in enumerate(one.items)
        )
        tasks.append(one.model_copy(update={"items": items}))
    return evaluated(pair, *tasks)


def of_other_weights(pair: Pair) -> TaskEval:
    """What the 8 bit version answered, for this one."""
    return TaskEval.measured(
        **pair.both | {"quantized": pair.side(pair.quantized).model_copy(update={"weights": digest("8")})}, settings={},
        tasks=tuple(asked(name) for name in CAPABILITIES),
    )  # fmt: skip


_EVALUATE = "quantgov evaluate models:/chat/2 --tasks tasks/"
SKIPPED = (
    _way(1, "perplexity alone", LLAMA_CPP.but("task-eval").but("fidelity", perplexity), "task-eval", "missing",
         "perplexity 7.39 -> 7.54 was measured, and shows nothing of what a model can no longer do", _EVALUATE),
    _way(1, "an average in which one capability was lost", GPTQ.but("task-eval", with_lost), "task-eval", "fail",
         "edge-cases fell from 90.0% to 60.0% on 200 items", "quantize it again"),
    _way(1, "choices that are scored, and nothing written", LLAMA_CPP.but("task-eval", choosing), "task-eval", "missing",
         "rests on multiple choice alone", _EVALUATE),
    _way(1, "the probability of reference answers as a task", LLAMA_CPP.but("task-eval", likelihood), "task-eval",
         "missing", "how likely a text is, which is a perplexity", _EVALUATE),
    _way(1, "a look at forty items", ONNX.but("task-eval", lambda pair: evaluated(
             pair, *(asked(name, items=40, failed=4) for name in CAPABILITIES))), "task-eval", "inconclusive",
         "has 40 items, the policy wants 149", _EVALUATE),
    _way(1, "one easy task under the names of three capabilities", LLAMA_CPP.but("task-eval", one_for_all), "task-eval",
         "missing", "were measured by the same items", _EVALUATE),
    _way(1, "one easy task by three names of its metric", LLAMA_CPP.but("task-eval", one_by_three_metrics), "task-eval",
         "missing", "were measured by the same items", _EVALUATE),
    _way(1, "a rate of errors taken for a score", LLAMA_CPP.but("task-eval", upwards), "task-eval", "missing",
         "counts errors upwards (our-multi-step-reasoning, error_rate: lower is better)", _EVALUATE),
    _way(1, "choices that are said to have been written", LLAMA_CPP.but("task-eval", lambda pair: evaluated(
             pair, *(asked(name, output=False) for name in CAPABILITIES))), "task-eval", "missing",
         "is kept without the answers, and may be multiple choice", _EVALUATE),
    _way(1, "the answers of another version", LLAMA_CPP.but("task-eval", of_other_weights), "task-eval", "missing",
         "what was attached is of other weights than this version's", _EVALUATE),
)  # fmt: skip


# 2. Generic calibration data.


def named(folder: Path) -> Path:
    """GPTQ as transformers writes it, with the name of the set that it was calibrated on."""
    made = folder / "named"
    shutil.copytree(ARTIFACTS / "gptq-w4g32", made)
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"]["dataset"] = "wikitext2"
    (made / "config.json").write_text(json.dumps(config))
    return made


def calibrated(release: Release, make: Callable[[], Calibration]) -> Release:
    """A release that was calibrated on something else."""
    return release.but("calibration", lambda _: make())


@dataclass(frozen=True)
class _Texts:
    """Files that statements of calibration are made from."""

    articles: tuple[str, ...] = field(default_factory=lambda: tuple(encyclopedia(200, 3)))
    mixed: tuple[str, ...] = field(default_factory=lambda: (*messages(150, 4), *encyclopedia(50, 5)))
    functions: tuple[str, ...] = field(default_factory=lambda: tuple(code(200, 6)))
    items: tuple[str, ...] = field(default_factory=lambda: (*messages(100, 1), *questions("edge-cases")[:100]))
    sample: tuple[str, ...] = field(default_factory=lambda: tuple(messages(200, 2)))
    few: tuple[str, ...] = field(default_factory=lambda: tuple(messages(8, 1)))


def with_a_trifle(pair: Pair) -> TaskEval:
    """The three capabilities, and beside them a task that stands for none."""
    beside = asked("edge-cases", items=5, task="trifle", task_digest=folder_digest(other_tasks()))
    return evaluated(pair, *map(asked, CAPABILITIES), beside.model_copy(update={"capability": None}))


TEXTS = _Texts()
_CALIBRATE = "quantgov calibration models:/chat/2"
_AGAIN = "quantgov quantize PARENT OUTPUT --recipe recipe.yaml --calibration calib.jsonl"
GENERIC = (
    _way(2, "WikiText under another name", calibrated(GPTQ, lambda: assessed(TEXTS.articles, "chats.jsonl")), "calibration",
         "fail", "The calibration data is the generic set wikitext, which no production sends", _AGAIN),
    _way(2, "a quarter of WikiText among real messages", calibrated(GPTQ, lambda: assessed(TEXTS.mixed, "chats.jsonl")),
         "calibration", "fail", "The calibration data is the generic set wikitext, which no production sends", _AGAIN),
    _way(2, "good data attached, and the producer's metadata name another",
         replace(GPTQ, artifact=named), "calibration", "fail", "name what it was calibrated on, wikitext2: the generic set wikitext", _AGAIN),
    _way(2, "the evaluation items", calibrated(GPTQ, lambda: assessed(TEXTS.items, "chats.jsonl")), "calibration", "fail",
         "100 calibration documents are also evaluation items", _AGAIN),
    _way(2, "the evaluation items, looked for in another task folder",
         calibrated(GPTQ, lambda: assessed(TEXTS.items, "chats.jsonl", searched=other_tasks())), "calibration", "missing",
         "other evaluation items", _CALIBRATE),
    _way(2, "the evaluation items, looked for in a folder that was asked beside the tasks that count",
         calibrated(GPTQ.but("task-eval", with_a_trifle), lambda: assessed(TEXTS.items, "chats.jsonl", searched=other_tasks())),
         "calibration", "missing", "other evaluation items than those that this version was asked in our-multi-step-reasoning",
         _CALIBRATE),
    _way(2, "text of another trade", calibrated(GPTQ, lambda: assessed(TEXTS.functions, "chats.jsonl")), "calibration",
         "fail", "By lengths, words and signs, the two lie 227.6% of production's own spread apart", _AGAIN),
    _way(2, "the production sample itself", calibrated(GPTQ, lambda: assessed(TEXTS.sample, "chats.jsonl")), "calibration",
         "fail", "200 calibration documents are also in the production sample", _AGAIN),
    _way(2, "a handful of documents", calibrated(GPTQ, lambda: assessed(TEXTS.few, "chats.jsonl")), "calibration",
         "inconclusive", "which does not settle it: at least 20 documents on each side", _CALIBRATE),
    _way(2, "no sample of production to compare with", calibrated(GPTQ, lambda: assessed(production=False)), "calibration",
         "missing", "no production sample", _CALIBRATE),
    _way(2, "nothing recorded", replace(GPTQ, calibration=None), "calibration", "missing",
         "no calibration data is recorded", _CALIBRATE),
    _way(2, "good data attached, and the recipe names another file",
         replace(GPTQ, recipe=Recipe(quantizer="gptqmodel", version="7.6.0", calibration=digest("7"))), "calibration",
         "fail", "The recipe with which it was logged names the calibration file sha256:777777777777", _CALIBRATE),
)  # fmt: skip


def other_tasks() -> Path:
    """A folder of tasks that nobody asked."""
    folder = task_folder().parent / "other-tasks"
    if not folder.exists():
        shutil.copytree(task_folder(), folder)
        written(["Which of the rivers that cross the plain is the longest one?"], "other-tasks/edge-cases.jsonl")
        for name in ("multi-step-reasoning", "instruction-following"):
            (folder / f"{name}.yaml").unlink()
            (folder / f"{name}.jsonl").unlink()
    return folder


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
    _way(3, "3 bit without any training", narrow("Q3_K", trained=replace(_TRAINING, stated=False)), "bit-width", "missing",
         "3 bit is below 4. It needs quantization-aware training, and none is recorded", "quantgov training"),
    _way(3, "2 bit at once", narrow("Q2_K"), "bit-width", "missing", "No version of the same parent at 4 bit or more",
         "quantize the parent at 4 bit"),
    _way(3, "4 bit by name, with one matrix of 2 bit", narrow("Q4_K", output="Q2_K"), "bit-width", "missing",
         "2 bit in 1 matrices is below 4", "quantize the parent at 4 bit"),
    _way(3, "trained for 3 bit, and no wider version measured first",
         replace(NARROW, trained=replace(_TRAINING, wider=None)), "bit-width", "missing",
         "No version of the same parent at 4 bit or more was evaluated first", "quantize the parent at 4 bit"),
    _way(3, "a training statement that names the original",
         replace(NARROW, artifact=lambda _: narrow_files.gguf("Q3_K"),
                 trained=replace(_TRAINING, checkpoint=narrow_files.original)), "bit-width", "fail",
         "is the original itself: nothing was trained", "train for this width"),
    _way(3, "rounded, and written back as floats of which nobody counts the bits", replace(
             LLAMA_CPP, artifact="dequantized-bf16", target=captured("cpu-transformers", CPU), kernel="Linear bfloat16",
             version="5.24.0"), "bit-width", "missing", "its floats lie on a k-bit grid", "log the quantized files themselves"),
    _way(3, "trained, and then another model rounded",
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
    _way(4, "4 bit GPTQ on a CPU", replace(GPTQ, target=captured("cpu-transformers", CPU), kernel="TorchAtenLinear"),
         "kernel-support", "fail", "transformers works slowly with these weights", "quantgov plan"),
    _way(4, "8 bit of torchao that is expanded for every product",
         replace(GPTQ, artifact="torchao-int8wo", target=captured("cpu-transformers", CPU), kernel="aten::mm"),
         "kernel-support", "fail", "transformers emulates", "quantgov plan"),
    _way(4, "weights that the runtime expands on loading",
         GPTQ.but("kernels", lambda pair: kernels(pair, dequantized=True, parameter_types={"bfloat16": 9})),
         "kernel-support", "fail", "transformers dequantizes", "quantgov plan"),
    _way(4, "the table alone, nothing loaded", GPTQ.but("kernels", lambda pair: kernels(
             pair, probed=False, side=None, not_probed_because="this machine has no GPU", fingerprint=None)),
         "kernel-support", "missing", "the runtime did not load it where it was measured: this machine has no GPU",
         "quantgov kernels models:/chat/2"),
    _way(4, "the runtime fell back to another kernel than the table's", replace(GPTQ, kernel="TorchLinear"),
         "kernel-support", "missing", "the runtime chose TorchLinear", "quantgov kernels models:/chat/2"),
    _way(4, "NF4 that decodes slower than its parent, for memory's sake", NF4.but("benchmark", slower), "kernel-support",
         "fail", "(transformers-bnb); timed on the target it is slower than its parent", "quantgov plan --target mine"),
    _way(4, "NF4 of which neither a source nor a clock says anything",
         replace(NF4, policy=with_floors("{peak_memory_gb: 0.001}")).but("benchmark", alone),
         "kernel-support", "missing", "does not say how well these weights are served (transformers-bnb: ",
         "quantgov kernels models:/chat/2; quantgov benchmark models:/chat/2"),
    _way(4, "seen on a newer GPU than those that serve",
         GPTQ.but("kernels", lambda pair: kernels(pair, fingerprint=GPU_MACHINE)), "kernel-support", "missing",
         "seen on a GPU of compute capability 9.0", "quantgov kernels models:/chat/2"),
    _way(4, "NF4 on a CPU, for a runtime that is spelt as no table spells it", replace(
             NF4, target=captured("cpu-transformers", CPU, runtime="Transformers", runtime_version="")), "kernel-support", "missing",
         "no table of the runtime Transformers", "name the runtime as a table does"),
    _way(4, "a probe that does not say which kernel the runtime took", LLAMA_CPP.but("kernels", lambda pair: kernels(
             pair, side=pair.side(pair.quantized))), "kernel-support", "missing",
         "the probe names no kernel, and the table (llamacpp-cpu-quantized) expects", "quantgov kernels models:/chat/2"),
    _way(4, "never looked at", LLAMA_CPP.but("kernels"), "kernel-support", "missing", "no kernel was confirmed",
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
    _way(5, "on the author's laptop", LLAMA_CPP.but("benchmark", lambda pair: benchmark(pair, fingerprint=LAPTOP)),
         "benchmark", "fail", "Measured on another machine. CPU: Core i7-1370P here, EPYC 9354 on the target", _BENCHMARK),
    _way(5, "on a bigger GPU of the cloud", GPTQ.but("benchmark", lambda pair: benchmark(pair, fingerprint=GPU_MACHINE)),
         "benchmark", "fail", "Measured on another machine. GPU: NVIDIA H100 here, NVIDIA A10G on the target", _BENCHMARK),
    _way(5, "for another target", ONNX.but("benchmark", lambda pair: benchmark(
             pair, target="laptop", target_digest=captured("cpu-onnxruntime", LAPTOP).digest, fingerprint=LAPTOP)),
         "benchmark", "missing", "no benchmark on mine", _BENCHMARK),
    _way(5, "the target is a template of no machine", replace(
             LLAMA_CPP, target=find_target("cpu-llamacpp")).but(
             "kernels", lambda pair: kernels(pair, fingerprint=CPU)).but("benchmark"),
         "benchmark", "missing", "is a template without a captured machine", "quantgov targets capture"),
    _way(5, "at another load than the one that is served", GPTQ.but("benchmark", lambda pair: timed_at(pair, 1, 16, 16)),
         "benchmark", "missing", "batch 1, 512 and 128 tokens was not timed", _BENCHMARK),
    _way(5, "in another runtime than the one that serves", ONNX.but("benchmark", lambda pair: benchmark(
             pair, quantized=pair.side(pair.quantized, runtime="llama.cpp"),
             parent=pair.side(pair.parent, runtime="llama.cpp"))),
         "benchmark", "missing", "it ran in llama.cpp, the target serves with onnxruntime", _BENCHMARK),
    _way(5, "a vendor's figures from an endpoint", GPTQ.but("benchmark", lambda pair: benchmark(
             pair, fingerprint=None, hardware_unknown="what serves at http://vendor/v1 is not seen from here",
             provenance=provenance(measured_at=pair.at, imported=True), parent_tries=(), quantized_tries=())),
         "benchmark", "fail", "The hardware is not known", _BENCHMARK),
    _way(5, "beside a parent on the processor of the GPU's machine", GPTQ.but("benchmark", lambda pair: benchmark(
             pair, parent=pair.side(pair.parent, settings={"device": "cpu"}))),
         "benchmark", "missing", "a side ran on CPU, the target serves on CUDA", _BENCHMARK),
    _way(5, "slower on the machine that serves", LLAMA_CPP.but("benchmark", slower), "benchmark", "fail", "Slower than its parent", _BENCHMARK),
)  # fmt: skip


# 6. A format that does not fit the deployment target.

FORMAT = (
    _way(6, "GPTQ for a CPU with llama.cpp", replace(GPTQ, target=captured("cpu-llamacpp", CPU)), "format-fit", "fail",
         "gptq does not run on mine: llama.cpp takes gguf", "quantize it again as gguf", "kernel-support"),
    _way(6, "GGUF for a GPU server with vLLM",
         replace(LLAMA_CPP, target=captured("gpu-vllm-ampere", GPU), version="0.33.0"), "format-fit", "fail",
         "gguf does not run on mine: vllm takes compressed-tensors, gptq, awq", "quantize it again as compressed-tensors", "kernel-support"),
    _way(6, "ONNX for transformers", replace(ONNX, target=captured("gpu-transformers", GPU), version="5.24.0"),
         "format-fit", "fail", "onnx does not run on mine", "quantgov plan --target mine", "kernel-support"),
    _way(6, "a format that the deployment does not take, though the runtime has a kernel for it",
         replace(GPTQ, target=captured("gpu-transformers", GPU, formats=("bitsandbytes", "awq"))), "format-fit", "fail",
         "gptq does not run on mine: transformers takes bitsandbytes, awq", "quantgov plan --target mine"),
    _way(6, "no target declared", replace(LLAMA_CPP, declared=False), "format-fit", "missing",
         "No deployment target is declared", "target=NAME", "kernel-support", "benchmark", "rollback-archive"),
)  # fmt: skip


# 7. No rollback plan.

ROLLBACK = (
    _way(7, "the original is archived nowhere", LLAMA_CPP.but("archive").but("drill"), "rollback-archive", "missing",
         "the full-precision weights are not archived", "quantgov archive models:/chat/2"),
    _way(7, "archived, and never brought back", ONNX.but("drill"), "rollback-archive", "missing", "no restore drill",
         "quantgov drill models:/chat/2"),
    _way(7, "brought back a hundred days ago", GPTQ.but("drill", lambda pair: drill(
             pair, provenance=provenance(measured_at=pair.at - timedelta(days=100)))), "rollback-archive", "missing",
         "The last drill is 100 days old", "quantgov drill models:/chat/2"),
    _way(7, "brought back, and it did not load", GPTQ.but("drill", lambda pair: drill(
             pair, loaded=False, answered=False, reproduced=None, problems=("tokenizer.json is missing",))),
         "rollback-archive", "fail", "The last restore drill failed: tokenizer.json is missing",
         "quantgov archive models:/chat/2"),
    _way(7, "no version of the model to go back to", replace(LLAMA_CPP, home="originals"), "rollback-archive", "missing",
         "The parent is no version of chat, so no alias can move back to it", "quantgov log-parent"),
    _way(7, "served behind no switch", replace(LLAMA_CPP, target=captured("cpu-llamacpp", CPU, flag=None)),
         "rollback-archive", "missing", "No switch is declared", "flag:"),
    _way(7, "another archive than the one that was tried", LLAMA_CPP.but("drill", lambda pair: drill(
             pair, store="file:///scratch")), "rollback-archive", "missing",
         "come back from file:///archive; the last one was of file:///scratch", "quantgov drill models:/chat/2"),
    _way(7, "the weights archived without tokenizer and configuration", LLAMA_CPP.but("archive", lambda pair: archive(
             pair, manifest_digest=digest("3"), files=pair.manifest[:1])), "rollback-archive", "missing",
         "the parent's files are not archived whole", "quantgov archive models:/chat/2"),
    _way(7, "one file of the original, said to be all of it", LLAMA_CPP.but(
             "archive", lambda pair: archive(pair, files=pair.manifest[:1])).but(
             "drill", lambda pair: drill(pair, verified_files=1)), "rollback-archive", "missing",
         "the parent's files are not archived whole", "quantgov archive models:/chat/2"),
)  # fmt: skip

WAYS = SKIPPED + GENERIC + FEW_BITS + KERNELS + MACHINE + FORMAT + ROLLBACK
