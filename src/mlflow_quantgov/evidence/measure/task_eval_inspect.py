"""Task evaluation from logs that Inspect wrote elsewhere: `.eval` archives, and the older `.json`."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.measure.import_files import Archive, FileOf
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.task_eval_pairs import ALL_EQUAL, all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_runs import MAX_OUTPUT, Sample, TaskRun
from mlflow_quantgov.evidence.predicates.base import Side
from mlflow_quantgov.evidence.predicates.task_eval import TaskEval
from mlflow_quantgov.evidence.statement import canonical_json, sha256_digest

_SAMPLE = re.compile(r"samples/[^/]+\.json")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's grades: correct, incorrect, partly correct, no answer."""
_FIX = "run `inspect eval` on both models to the end, with --log-samples"


@dataclass(frozen=True)
class _Log:
    """One side's log."""

    file: FileOf
    header: dict[str, Any]
    samples: list[dict[str, Any]]
    """Those that were scored, in the order of their ids and epochs."""
    unscored: int

    @property
    def spec(self) -> dict[str, Any]:
        """What was evaluated."""
        found = self.header.get("eval")
        return found if isinstance(found, dict) else {}

    def said(self, key: str) -> str | None:
        """A text of the log's own metadata."""
        metadata = self.spec.get("metadata")
        value = metadata.get(key) if isinstance(metadata, dict) else None
        return value if isinstance(value, str) else None


def from_inspect_logs(
    parent: Path,
    quantized: Path,
    *,
    parent_weights: str,
    quantized_weights: str,
    capabilities: dict[str, str] | None = None,
    metrics: dict[str, str] | None = None,
) -> TaskEval:
    """Pair two logs of Inspect. Nobody here saw those bytes run, so the statement says `imported`.

    Epochs of one sample are one cluster. Samples that ended in an error on both sides are left out, and counted in a
    warning; on one side alone they are an error.

    Args:
        parent: The parent's log, `.eval` or `.json`.
        quantized: The quantized model's log of the same task.
        parent_weights: Weights digest of the parent, as claimed.
        quantized_weights: Weights digest of the quantized model, as claimed.
        capabilities: Task name to capability, where the log's metadata do not say.
        metrics: Task name to scorer (`scorer`, or `scorer/key` where it gives several numbers), where not the first.

    Raises:
        UsageError: A file does not read, its run did not end, or the scorer gives no number.
        EvidenceError: The two sides are of different tasks, or were not asked the same questions.
    """
    left, right = _open(parent), _open(quantized)
    task = str(left.spec.get("task") or "inspect")[:200]
    if left.spec.get("task") != right.spec.get("task"):
        raise EvidenceError(
            f"The logs are of different tasks: {task} and {str(right.spec.get('task'))[:200]}.",
            why="Only answers to the same questions can be compared.",
            fix="give two logs of one task",
        )
    scorer = (metrics or {}).get(task) or _first_scorer(left)
    runs = [_run(one, task, scorer) for one in (left, right)]
    digest = sha256_digest(canonical_json([task, scorer, [[one.name, one.prompt] for one in runs[0].samples]]))
    found = pair(
        *runs,
        digest=digest,
        capability=(capabilities or {}).get(task) or left.said("capability"),
        metric=scorer,
        imported=True,
    )
    return TaskEval.measured(
        provenance=provenance(imported=True),
        parent=_side(parent_weights, left),
        quantized=_side(quantized_weights, right),
        settings={"imported": True, "source": "inspect", "created": left.spec.get("created")},
        tasks=(found,),
        warnings=tuple(one[:1000] for one in _warnings(left, right, all_equal(found))),
    )


def _open(path: Path) -> _Log:
    file = FileOf(path, _FIX)
    file.check()
    with path.open("rb") as stream:
        is_archive = stream.read(4)[:2] == b"PK"
    if is_archive:
        archive = Archive(file)
        if "header.json" not in archive.members:
            raise file.bad("it has no header.json: the run did not end, or it is no log of Inspect")
        header = archive.read("header.json")
        samples = [archive.read(name) for name in archive.members if _SAMPLE.fullmatch(name)]
    else:
        header = file.document()
        given = header.pop("samples", None)
        samples = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    if header.get("status") != "success":
        raise file.bad(f"its run did not end well (status {str(header.get('status'))[:20]!r})")
    if not samples:
        raise file.bad("it holds no samples")
    scored = [one for one in samples if isinstance(one.get("scores"), dict) and one["scores"]]
    if not scored:
        raise file.bad("none of its samples has a score")
    scored.sort(key=lambda one: (str(one.get("id")), _epoch(one)))
    return _Log(file, header, scored, len(samples) - len(scored))


def _first_scorer(log: _Log) -> str:
    scorers = log.spec.get("scorers")
    names = (
        [one["name"] for one in scorers if isinstance(one, dict) and "name" in one] if isinstance(scorers, list) else []
    )
    present = log.samples[0]["scores"]
    return next((str(name) for name in names if name in present), str(next(iter(present))))


def _run(log: _Log, task: str, scorer: str) -> TaskRun:
    group_by = log.said("group_by")
    samples = list(_samples(log, scorer, group_by))
    if len({one.name for one in samples}) != len(samples):
        raise log.file.bad("it holds a sample twice")
    kind = "multiple_choice" if all(one.choices for one in samples) else "generate_until"
    return TaskRun(task, kind, 0, [[scorer, True]], samples)


def _samples(log: _Log, scorer: str, group_by: str | None) -> Iterator[Sample]:
    name, _, key = scorer.partition("/")
    epochs = any(_epoch(one) != 1 for one in log.samples)
    for number, one in enumerate(log.samples):
        given = one["scores"].get(name)
        value = _value(given.get("value") if isinstance(given, dict) else None, key)
        identity = str(one.get("id"))[:180]
        if value is None:
            listed = ", ".join(str(each) for each in one["scores"])[:200]
            raise log.file.bad(f"the sample {identity} has no finite score of {scorer!r} (scorers: {listed})")
        metadata = one.get("metadata")
        group = metadata.get(group_by) if group_by and isinstance(metadata, dict) else None
        if group is None and epochs:
            group = identity
        choices = one.get("choices")
        yield Sample(
            number=number,
            name=f"{identity}/{_epoch(one)}" if epochs else identity,
            group=None if group is None else str(group)[:1000],
            prompt=hashlib.sha256(canonical_json(_asked(one))).hexdigest(),
            output=_output(one),
            logprobs=None,
            scores={scorer: value},
            choices=len(choices) if isinstance(choices, list) and choices else None,
        )


def _value(value: Any, key: str) -> float | None:
    """A grade or a number; None for anything else."""
    if key:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str):
        return _GRADES.get(value)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _asked(sample: dict[str, Any]) -> list[Any]:
    """All turns before the model's first one, else the input with its choices; ids of messages are random."""
    messages = sample.get("messages")
    turns: list[Any] = []
    for one in messages if isinstance(messages, list) else []:
        if not isinstance(one, dict) or one.get("source") == "generate":
            break
        turns.append([one.get("role"), _texts(one.get("content"))])
    return [turns or sample.get("input"), sample.get("choices"), sample.get("target")]


def _texts(content: Any) -> Any:
    """What a turn says, without the ids of its parts."""
    if isinstance(content, list):
        return [
            {key: value for key, value in one.items() if key != "id"} if isinstance(one, dict) else one
            for one in content
        ]
    return content


def _output(sample: dict[str, Any]) -> str | None:
    output = sample.get("output")
    text = output.get("completion") if isinstance(output, dict) else None
    return text[:MAX_OUTPUT] if isinstance(text, str) else None


def _epoch(sample: dict[str, Any]) -> int:
    epoch = sample.get("epoch", 1)
    return epoch if isinstance(epoch, int) else 1


def _side(weights: str, log: _Log) -> Side:
    packages = log.spec.get("packages")
    version = packages.get("inspect_ai") if isinstance(packages, dict) else None
    return Side(
        weights=weights,
        runtime=f"inspect {log.spec.get('model', 'model')}"[:200],
        version=str(version or "unknown")[:200],
        twin="imported",
        settings={"generation": _generation(log)},
    )


def _generation(log: _Log) -> dict[str, Any]:
    """Settings of the generation that the log states."""
    plan = log.header.get("plan")
    given = [log.spec.get("model_generate_config"), plan.get("config") if isinstance(plan, dict) else None]
    merged: dict[str, Any] = {}
    for one in given:
        merged |= {str(key)[:100]: value for key, value in one.items()} if isinstance(one, dict) else {}
    return {
        key: value
        for key, value in merged.items()
        if isinstance(value, int | float | str | bool) and key != "max_connections"
    }


def _warnings(left: _Log, right: _Log, equal: bool) -> Iterator[str]:
    if equal:
        yield ALL_EQUAL
    if left.unscored:
        yield f"{left.unscored} samples ended in an error on both sides and are left out."
    settings = [_generation(one) for one in (left, right)]
    if settings[0] != settings[1]:
        yield f"The sides ran with different generation settings: {settings[0]} and {settings[1]}."
    if any(one.get("temperature") != 0 for one in settings):
        yield "The temperature was not 0, or nobody wrote it down: answers may differ by chance, and the noise floor is unknown."
