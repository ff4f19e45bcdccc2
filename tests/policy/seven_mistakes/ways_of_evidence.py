"""Two of the seven mistakes: evaluation that was skipped, and calibration data that are not production's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from calibration_files import assessed, code, encyclopedia, messages, questions, task_folder, written
from good_releases import GPTQ, LLAMA_CPP, ONNX
from releases import digest
from way import way
from whole_releases import (
    ARTIFACTS,
    CAPABILITIES,
    Pair,
    Release,
    asked,
    evaluated,
)  # fmt: skip

from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates import Answer, Calibration, Fidelity, TaskEval
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord

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


EVALUATE = "quantgov evaluate models:/chat/2 --tasks tasks/"
SKIPPED = (
    way(1, "perplexity alone", LLAMA_CPP.but("task-eval").but("fidelity", perplexity), "task-eval", "missing",
         "perplexity 7.39 -> 7.54 was measured, and shows nothing of what a model can no longer do", EVALUATE),
    way(1, "an average in which one capability was lost", GPTQ.but("task-eval", with_lost), "task-eval", "fail",
         "edge-cases fell from 90.0% to 60.0% on 200 items", "quantize it again"),
    way(1, "choices that are scored, and nothing written", LLAMA_CPP.but("task-eval", choosing), "task-eval", "missing",
         "rests on multiple choice alone", EVALUATE),
    way(1, "the probability of reference answers as a task", LLAMA_CPP.but("task-eval", likelihood), "task-eval",
         "missing", "how likely a text is, which is a perplexity", EVALUATE),
    way(1, "a look at forty items", ONNX.but("task-eval", lambda pair: evaluated(
             pair, *(asked(name, items=40, failed=4) for name in CAPABILITIES))), "task-eval", "inconclusive",
         "has 40 items, the policy wants 149", EVALUATE),
    way(1, "one easy task under the names of three capabilities", LLAMA_CPP.but("task-eval", one_for_all), "task-eval",
         "missing", "were measured by the same items", EVALUATE),
    way(1, "one easy task by three names of its metric", LLAMA_CPP.but("task-eval", one_by_three_metrics), "task-eval",
         "missing", "were measured by the same items", EVALUATE),
    way(1, "a rate of errors taken for a score", LLAMA_CPP.but("task-eval", upwards), "task-eval", "missing",
         "counts errors upwards (our-multi-step-reasoning, error_rate: lower is better)", EVALUATE),
    way(1, "choices that are said to have been written", LLAMA_CPP.but("task-eval", lambda pair: evaluated(
             pair, *(asked(name, output=False) for name in CAPABILITIES))), "task-eval", "missing",
         "is kept without the answers, and may be multiple choice", EVALUATE),
    way(1, "the answers of another version", LLAMA_CPP.but("task-eval", of_other_weights), "task-eval", "missing",
         "what was attached is of other weights than this version's", EVALUATE),
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
CALIBRATE = "quantgov calibration models:/chat/2"
_AGAIN = "quantgov quantize PARENT OUTPUT --recipe recipe.yaml --calibration calib.jsonl"
GENERIC = (
    way(2, "WikiText under another name", calibrated(GPTQ, lambda: assessed(TEXTS.articles, "chats.jsonl")), "calibration",
         "fail", "The calibration data is the generic set wikitext, which no production sends", _AGAIN),
    way(2, "a quarter of WikiText among real messages", calibrated(GPTQ, lambda: assessed(TEXTS.mixed, "chats.jsonl")),
         "calibration", "fail", "The calibration data is the generic set wikitext, which no production sends", _AGAIN),
    way(2, "good data attached, and the producer's metadata name another",
         replace(GPTQ, artifact=named), "calibration", "fail", "name what it was calibrated on, wikitext2: the generic set wikitext", _AGAIN),
    way(2, "the evaluation items", calibrated(GPTQ, lambda: assessed(TEXTS.items, "chats.jsonl")), "calibration", "fail",
         "100 calibration documents are also evaluation items", _AGAIN),
    way(2, "the evaluation items, looked for in another task folder",
         calibrated(GPTQ, lambda: assessed(TEXTS.items, "chats.jsonl", searched=other_tasks())), "calibration", "missing",
         "other evaluation items", CALIBRATE),
    way(2, "the evaluation items, looked for in a folder that was asked beside the tasks that count",
         calibrated(GPTQ.but("task-eval", with_a_trifle), lambda: assessed(TEXTS.items, "chats.jsonl", searched=other_tasks())),
         "calibration", "missing", "other evaluation items than those that this version was asked in our-multi-step-reasoning",
         CALIBRATE),
    way(2, "text of another trade", calibrated(GPTQ, lambda: assessed(TEXTS.functions, "chats.jsonl")), "calibration",
         "fail", "By lengths, words and signs, the two lie 227.6% of production's own spread apart", _AGAIN),
    way(2, "the production sample itself", calibrated(GPTQ, lambda: assessed(TEXTS.sample, "chats.jsonl")), "calibration",
         "fail", "200 calibration documents are also in the production sample", _AGAIN),
    way(2, "a handful of documents", calibrated(GPTQ, lambda: assessed(TEXTS.few, "chats.jsonl")), "calibration",
         "inconclusive", "which does not settle it: at least 20 documents on each side", CALIBRATE),
    way(2, "no sample of production to compare with", calibrated(GPTQ, lambda: assessed(production=False)), "calibration",
         "missing", "no production sample", CALIBRATE),
    way(2, "nothing recorded", replace(GPTQ, calibration=None), "calibration", "missing",
         "no calibration data is recorded", CALIBRATE),
    way(2, "good data attached, and the recipe names another file",
         replace(GPTQ, recipe=Recipe(quantizer="gptqmodel", version="7.6.0", calibration=digest("7"))), "calibration",
         "fail", "The recipe with which it was logged names the calibration file sha256:777777777777", CALIBRATE),
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
