"""One side's answers to one task, in the form in which they are kept and paired."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_quantgov.errors import EvidenceError, UsageError

MAX_OUTPUT = 20_000
"""Characters kept of one answer."""


@dataclass(frozen=True)
class Sample:
    """One answered item."""

    number: int
    """Position in the task's data."""
    name: str | None
    """The item's own `id`, where it has one."""
    group: str | None
    prompt: str
    """sha256 (hex) of everything that was asked, chat template included."""
    output: str | None
    logprobs: list[float] | None
    scores: dict[str, float]
    """Metric, or `metric,filter`, to the finite number of this item."""
    choices: int | None = None
    """Answers that it offers; None where it is no multiple choice."""


@dataclass(frozen=True)
class TaskRun:
    """One task, answered by one side."""

    task: str
    output_type: str
    few_shot: int
    metrics: list[list[Any]]
    """Metric name and whether higher is better, in the task's order."""
    samples: list[Sample]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TaskRun:
        """Read what `dataclasses.asdict` gave."""
        return cls(**{**data, "samples": [Sample(**sample) for sample in data["samples"]]})

    def first(self, limit: int | None) -> TaskRun:
        """The same run cut to its first items."""
        return replace(self, samples=self.samples[:limit])


def read_run(
    task: str,
    samples: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    higher_is_better: Mapping[str, Any],
    group_by: str | None,
) -> TaskRun:
    """Take what is needed from lm-eval's samples, fresh or read from its own files.

    A task with several filters gives one row per item and filter: the first filter is the answer, and every filter's
    score is kept under `metric,filter`.

    Args:
        task: Name of the task.
        samples: lm-eval's rows.
        config: The task's configuration as lm-eval completed it.
        higher_is_better: Metric name to direction, as lm-eval reports it.
        group_by: Field of the item that names its cluster.

    Raises:
        UsageError: Items do not have the field that clusters them.
        EvidenceError: A row lacks a part, or a log-probability is not finite.
    """
    found: dict[int, Sample] = {}
    output_type = str(config.get("output_type") or "")
    for row in samples:
        try:
            output_type = output_type or _type_of(row)
            sample = _sample(row, group_by, task, output_type == "multiple_choice")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise EvidenceError(
                f"A sample of the task {task} does not read: {type(error).__name__} {str(error)[:100]}.",
                why="Only complete records can be compared.",
                fix="run lm-eval again with --log_samples",
            ) from error
        filtered = {f"{name},{row.get('filter', 'none')}": value for name, value in sample.scores.items()}
        before = found.get(sample.number)
        scores = (before.scores if before else sample.scores) | filtered
        found[sample.number] = replace(before or sample, scores=scores)
    return TaskRun(
        task=task,
        output_type=output_type or "generate_until",
        few_shot=int(config.get("num_fewshot") or 0),
        metrics=_metrics(config, higher_is_better),
        samples=[found[number] for number in sorted(found)],
    )


def _type_of(row: Mapping[str, Any]) -> str:
    """What lm-eval asked for, where no summary says: several scored continuations are a choice between them."""
    answers = row["resps"]
    if isinstance(answers[0][0], str) and not _scores_text(row) and not _is_pair(answers[0][0]):
        return "generate_until"
    return "multiple_choice" if len(answers) > 1 else "loglikelihood"


def _is_pair(answer: Any) -> bool:
    return isinstance(answer, list | tuple) and len(answer) == 2


def _sample(row: Mapping[str, Any], group_by: str | None, task: str, chooses: bool) -> Sample:
    document = row["doc"]
    document = document if isinstance(document, Mapping) else {}
    if group_by is not None and document.get(group_by) is None:
        raise UsageError(
            f"Item {row['doc_id']} of the task {task} has no field {group_by!r}, which `metadata.group_by` names.",
            why="Items of one cluster are not independent; counting them so would overstate the evidence.",
            fix=f"give every item a {group_by!r}, or take `group_by` out of the task",
        )
    answers = [response[0] for response in row["resps"]]
    if not answers:
        raise ValueError("no answer was logged")
    generated = isinstance(answers[0], str) and not _scores_text(row)
    name = document.get("id")
    return Sample(
        number=int(row["doc_id"]),
        name=str(name)[:200] if isinstance(name, str | int) else None,
        group=str(document[group_by])[:1000] if group_by is not None else None,
        prompt=hashlib.sha256(json.dumps(row["arguments"], sort_keys=True, default=str).encode()).hexdigest(),
        output=answers[0][:MAX_OUTPUT] if generated else None,
        logprobs=None if generated else [_logprob(answer) for answer in answers],
        scores={name: value for name in row.get("metrics", ()) if (value := _number(row.get(name))) is not None},
        # Mutual information scores every choice a second time, without the question.
        choices=len(answers) // (2 if "acc_mutual_info" in row.get("metrics", ()) else 1) if chooses else None,
    )


def _scores_text(row: Mapping[str, Any]) -> bool:
    """lm-eval writes the log-likelihood of a whole text as bare digits; a generated answer has settings beside it."""
    arguments = row["arguments"]
    first = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return len(first) == 1


def _logprob(answer: Any) -> float:
    """Of `(log-probability, is greedy)`, of its text form in lm-eval's files, or of the bare number."""
    value = float(answer[0] if isinstance(answer, list | tuple) else answer)
    if not math.isfinite(value):
        raise ValueError("a log-probability is not finite")
    return value


def _number(value: Any) -> float | None:
    """A finite number, numpy's included; None for anything else (pairs that only an aggregation understands)."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _metrics(config: Mapping[str, Any], higher_is_better: Mapping[str, Any]) -> list[list[Any]]:
    found: dict[str, bool] = {}
    for entry in config.get("metric_list") or []:
        if isinstance(entry, Mapping) and isinstance(entry.get("metric"), str):
            name = entry["metric"]
            given = entry.get("higher_is_better", higher_is_better.get(name))
            found[name] = True if given is None else bool(given)
    for name, given in higher_is_better.items():
        found.setdefault(name, True if given is None else bool(given))
    return [[name, higher] for name, higher in found.items()]
