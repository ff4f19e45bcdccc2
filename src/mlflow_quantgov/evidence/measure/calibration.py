"""Calibration data: recorded, compared with production, searched for generic sets and leaked evaluation items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.counting import count_tokens
from mlflow_quantgov.evidence.likeness import MIN_DOCUMENTS, THRESHOLD
from mlflow_quantgov.evidence.measure.calibration_expectations import check_quality
from mlflow_quantgov.evidence.measure.calibration_features import most_different, out_of_fold_scores, sample
from mlflow_quantgov.evidence.measure.calibration_generic import recognise
from mlflow_quantgov.evidence.measure.calibration_overlap import evaluation_items, leaked, shared
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates.calibration import Calibration, DataRecord, Likeness

TEST = "words-and-surface"
"""Name of the test of likeness: can a classifier tell the two files apart?"""


def assess(
    data: Path,
    production: Path | None,
    *,
    source: str | None = None,
    license: str | None = None,
    tasks: Path | None = None,
    noted: Sequence[str] = (),
    artifact: Path | None = None,
    expectations: bool = True,
) -> Calibration:
    """Record calibration data and measure how like production it is.

    Args:
        data: What the quantizer saw: text, or JSONL with `text` or `messages`.
        production: A sample of production traffic in the same form; None leaves likeness unmeasured.
        source: What the author says the data is.
        license: Its licence, as the author says.
        tasks: Task folder whose items must not be among the documents; None leaves that unsearched.
        noted: Names of data sets that the artifact's own metadata give.
        artifact: The model, whose tokenizer counts the tokens.
        expectations: Whether to run great-expectations where it is installed.

    Raises:
        UsageError: A file does not exist or holds no documents.
    """
    raw = read_documents(data, keep_empty=True)
    documents = [one for one in raw if one.strip()]
    traffic = read_documents(production) if production is not None else []
    return Calibration.measured(
        provenance=provenance("scikit-learn", "numpy", *(["great-expectations", "py3langid"] if expectations else [])),
        data=_record(data, documents, source, license, artifact),
        production=_record(production, traffic, None, None, artifact) if production is not None else None,
        generic_set=recognise(documents, source=source, file_name=data.name, noted=noted),
        noted=tuple(noted),
        leaked_documents=leaked(documents, evaluation_items(tasks) if tasks is not None else ()),
        searched_tasks=folder_digest(tasks) if tasks is not None else None,
        shared_with_production=shared(documents, traffic),
        likeness=_likeness(documents, traffic),
        expectations=check_quality(raw, traffic, wanted=expectations),
        most_different=tuple(most_different(documents, traffic)) if traffic else (),
    )


def compare_files(
    calibration: Path,
    production: Path,
    *,
    tasks: Path | None = None,
    source: str | None = None,
    expectations: bool = True,
) -> dict[str, Any]:
    """Likeness of two files, before quantizing, as `quantgov calibration --json` prints it.

    Args:
        calibration: What the quantizer is to see.
        production: A sample of production traffic.
        tasks: Task folder whose items must not be among the calibration documents.
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


def reason(found: Calibration) -> str:
    """Why an assessment came out as it did, in one or two sentences."""
    if found.generic_set:
        return f"The calibration data is the generic set {found.generic_set}, which no production sends."
    if found.leaked_documents:
        return f"{found.leaked_documents} calibration documents are also evaluation items."
    if found.shared_with_production:
        return f"{found.shared_with_production} calibration documents are also in the production sample."
    if not found.summary["tests"]:
        return "Not measured: likeness needs a production sample and at least two different documents on each side."
    test = found.summary["tests"][0]
    share = f"in {test['estimate']:.0%} of pairs (at most {test['threshold']:.0%} is accepted)"
    if test["outcome"] == "pass":
        return f"A classifier can hardly tell the two apart: {share}."
    if test["outcome"] == "fail":
        feature = found.most_different[0]
        differs = f"{feature['feature']}, {feature['calibration']:.3g} against {feature['production']:.3g}"
        return f"A classifier tells the two apart {share}; their surface differs most in {differs}."
    if test["upper"] < 1 - THRESHOLD:
        return "The two files seem to hold near copies of the same documents, which proves nothing."
    few = min(len(one.calibration) for one in found.likeness) < MIN_DOCUMENTS
    more = (
        f"; give at least {MIN_DOCUMENTS} documents, better a few hundred"
        if few
        else "; more documents would settle it"
    )
    return f"A classifier tells the two apart {share}, which does not settle it{more}."


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
    )


def _likeness(documents: Sequence[str], traffic: Sequence[str]) -> tuple[Likeness, ...]:
    left, right = sample(documents), sample(traffic)
    if min(len(left), len(right)) < 2:
        return ()
    calibration, production = out_of_fold_scores(left, right)
    return (Likeness(name=TEST, calibration=tuple(calibration), production=tuple(production), threshold=THRESHOLD),)
