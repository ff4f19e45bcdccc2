"""Calibration data: recorded, compared with production, searched for generic sets and leaked evaluation items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_quantgov.artifact.runtimes.counting import count_tokens
from mlflow_quantgov.evidence.calibration_words import reason
from mlflow_quantgov.evidence.measure.calibration.activations import ParentLayers, View, look
from mlflow_quantgov.evidence.measure.calibration.expectations import check_quality
from mlflow_quantgov.evidence.measure.calibration.generic import recognise
from mlflow_quantgov.evidence.measure.calibration.overlap import evaluation_items, item_texts, leaked, shared
from mlflow_quantgov.evidence.measure.calibration.sampling import sample, unrepresented
from mlflow_quantgov.evidence.measure.calibration.surface import most_different
from mlflow_quantgov.evidence.measure.calibration.views import compare_texts
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.lm_eval_adapter import documents as documents_of
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.shipped_tasks import find_tasks
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates.calibration import Calibration, DataRecord


def assess(
    data: Path,
    production: Path | None,
    *,
    source: str | None = None,
    license: str | None = None,
    tasks: Path | Sequence[str] | None = None,
    noted: Sequence[str] = (),
    artifact: Path | None = None,
    expectations: bool = True,
    layers: ParentLayers | None = None,
) -> Calibration:
    """Record calibration data and measure how like production it is.

    Args:
        data: What the quantizer saw: text, or JSONL with `text` or `messages`.
        production: A sample of production traffic in the same form; None leaves likeness unmeasured.
        source: What the author says the data is.
        license: Its licence, as the author says.
        tasks: Task folder, or names of tasks that lm-eval ships, whose items must not be among the documents; None leaves
            that unsearched.
        noted: Names of data sets that the artifact's own metadata give.
        artifact: The model, whose tokenizer counts the tokens.
        expectations: Whether to run great-expectations where it is installed.
        layers: The parent and the quantized model, to compare what the parent's layers see; None leaves that out.

    Raises:
        UsageError: A file does not exist or holds no documents, or a task cannot be had.
        EvidenceError: A side has no document of two tokens, or a layer of the parent gives NaN.
    """
    searched = _searched(tasks)
    raw = read_documents(data, keep_empty=True)
    documents = [one for one in raw if one.strip()]
    traffic = read_documents(production) if production is not None else []
    sides = sample(documents), sample(traffic)
    view = look(layers, *sides) if layers is not None and traffic else View()
    libraries = ["scikit-learn", "numpy", *(["great-expectations", "py3langid"] if expectations else [])]
    libraries += ["transformers", "torch"] if view.observation else []
    return Calibration.measured(
        provenance=provenance(*libraries),
        data=_record(data, documents, source, license, artifact),
        production=_record(production, traffic, None, None, artifact) if production is not None else None,
        generic_set=recognise(documents, source=source, file_name=data.name, noted=noted),
        noted=tuple(noted),
        leaked_documents=leaked(documents, searched.items),
        searched_tasks=searched.together,
        searched=searched.single,
        shared_with_production=shared(documents, traffic),
        likeness=(*compare_texts(*sides), *view.likeness),
        layers=view.layers,
        observation=view.observation,
        unobserved=view.unobserved,
        expectations=check_quality(raw, traffic, wanted=expectations),
        most_different=tuple(most_different(documents, traffic)) if traffic else (),
    )


def compare_files(
    calibration: Path,
    production: Path,
    *,
    tasks: Path | Sequence[str] | None = None,
    source: str | None = None,
    expectations: bool = True,
) -> dict[str, Any]:
    """Likeness of two files, before quantizing, as `quantgov calibration --json` prints it.

    Args:
        calibration: What the quantizer is to see.
        production: A sample of production traffic.
        tasks: Task folder, or names of tasks that lm-eval ships, whose items must not be among the calibration documents.
        source: What the author says the calibration data is.
        expectations: Whether to run great-expectations where it is installed.

    Raises:
        UsageError: A file does not exist or holds no documents.
    """
    found = assess(calibration, production, tasks=tasks, source=source, expectations=expectations)
    assert found.production is not None
    return {
        "outcome": found.summary["outcome"],
        "reason": reason(found),
        "generic_set": found.generic_set,
        "leaked_documents": found.leaked_documents,
        "searched_tasks": found.searched_tasks,
        "shared_with_production": found.shared_with_production,
        "documents": {"calibration": found.data.documents, "production": found.production.documents},
        "tests": found.summary["tests"],
        "expectations": found.expectations,
        "most_different": list(found.most_different),
    }


class _Searched(NamedTuple):
    """Items that are looked for, and the digests of the tasks that they are of."""

    items: Sequence[str] = ()
    together: str | None = None
    single: tuple[str, ...] = ()


def _searched(tasks: Path | Sequence[str] | None) -> _Searched:
    if tasks is None:
        return _Searched()
    if isinstance(tasks, Path):
        return _Searched(evaluation_items(tasks), folder_digest(tasks))
    found, together = find_tasks(tasks)
    items = item_texts(row for task in found for row in documents_of(task))
    return _Searched(items, together, tuple(task.digest for task in found if task.digest is not None))


def _record(
    path: Path, documents: Sequence[str], source: str | None, license: str | None, artifact: Path | None
) -> DataRecord:
    return DataRecord(
        digest=file_digest(path),
        documents=len(documents),
        characters=sum(len(one) for one in documents),
        tokens=count_tokens(artifact, documents) if artifact is not None else None,
        source=source[:1000] if source else None,
        license=license[:1000] if license else None,
        unrepresented=unrepresented(documents),
    )
