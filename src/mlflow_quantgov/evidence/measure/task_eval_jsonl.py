"""Task evaluation from plain JSON lines: scores per item that anybody made, for one capability."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.import_files import FileOf
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.task_eval_pairs import ALL_EQUAL, all_equal, pair
from mlflow_quantgov.evidence.measure.task_eval_runs import MAX_OUTPUT, Sample, TaskRun
from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS, Side
from mlflow_quantgov.evidence.predicates.task_eval import TaskEval
from mlflow_quantgov.evidence.statement import canonical_json, sha256_digest

EXAMPLE = '{"id": "a", "score": 1.0, "group": "g", "output": "..."}'
_KEYS = {"id", "score", "group", "output", "prompt"}


def from_jsonl(
    parent: Path, quantized: Path, *, parent_weights: str, quantized_weights: str, capability: str
) -> TaskEval:
    """Pair two files of scores. Nobody here saw those bytes run, so the statement says `imported`.

    Args:
        parent: Lines `{"id", "score", "group"?, "output"?, "prompt"?}` of the parent; higher scores are better.
        quantized: The same items of the quantized model.
        parent_weights: Weights digest of the parent, as claimed.
        quantized_weights: Weights digest of the quantized model, as claimed.
        capability: What the items measure; it names the task too.

    Raises:
        UsageError: A file does not read, a line lacks its id or a finite score, or an id stands twice.
        EvidenceError: The two sides do not hold the same items, or a side answered nothing at all.
    """
    if not capability.strip() or len(capability) > 200:
        raise UsageError(
            "These scores stand for no capability.",
            why="They would gate nothing.",
            fix="--capability instruction-following",
        )
    left, right = (
        _run(FileOf(path, f"write one line per item, such as {EXAMPLE}"), capability) for path in (parent, quantized)
    )
    digest = sha256_digest(canonical_json([[one.name, one.group, one.prompt] for one in left.samples]))
    found = pair(left, right, digest=digest, capability=capability, metric="score", imported=True)
    return TaskEval.measured(
        provenance=provenance(imported=True),
        parent=_side(parent_weights),
        quantized=_side(quantized_weights),
        settings={"imported": True, "source": "jsonl"},
        tasks=(found,),
        warnings=(ALL_EQUAL,) if found.items[0].parent.output is not None and all_equal(found) else (),
    )


def _run(file: FileOf, task: str) -> TaskRun:
    found: dict[str, Sample] = {}
    for number, row in enumerate(file.rows(), 1):
        sample = _sample(file, number, row, task)
        if sample.name in found:
            raise file.bad(f"the id {str(sample.name)[:60]!r} stands twice")
        found[str(sample.name)] = sample
        if len(found) > MAX_ITEMS:
            raise file.bad(f"it has more than {MAX_ITEMS:,} items")
    if not found:
        raise file.bad("it holds no items")
    ordered = [found[name] for name in sorted(found)]
    samples = [replace(one, number=number) for number, one in enumerate(ordered)]
    return TaskRun(task, "imported", 0, [["score", True]], samples)


def _sample(file: FileOf, number: int, row: dict[str, Any], task: str) -> Sample:
    identity, score, group = row.get("id"), row.get("score"), row.get("group")
    if unknown := row.keys() - _KEYS:
        raise file.bad(f"item {number} has the unknown key {sorted(unknown)[0][:40]!r}")
    if (
        not isinstance(identity, str | int)
        or isinstance(identity, bool)
        or not str(identity)
        or len(str(identity)) > 200
    ):
        raise file.bad(f"item {number} has no id of at most 200 characters")
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise file.bad(f"the score of item {number} is not a finite number")
    for key in ("output", "prompt"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise file.bad(f"the {key} of item {number} is no text")
    # Item 1 of one task asks something else than item 1 of another.
    asked = row.get("prompt") if row.get("prompt") is not None else f"{task} id {identity}"
    return Sample(
        number=number,
        name=str(identity),
        group=None if group is None else str(group)[:1000],
        prompt=hashlib.sha256(str(asked).encode()).hexdigest(),
        output=row["output"][:MAX_OUTPUT] if row.get("output") is not None else None,
        logprobs=None,
        scores={"score": float(score)},
    )


def _side(weights: str) -> Side:
    return Side(weights=weights, runtime="unknown", version="unknown", twin="imported")
