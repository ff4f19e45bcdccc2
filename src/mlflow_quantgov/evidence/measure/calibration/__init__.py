"""Calibration data: recorded, compared with production, searched for generic sets and leaked evaluation items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.counting import count_tokens
from mlflow_quantgov.evidence.likeness import MIN_DOCUMENTS, PHRASES, TEXT_TESTS, area_under_curve, overall
from mlflow_quantgov.evidence.measure.calibration.activations import ParentLayers, View, look
from mlflow_quantgov.evidence.measure.calibration.expectations import check_quality
from mlflow_quantgov.evidence.measure.calibration.generic import recognise
from mlflow_quantgov.evidence.measure.calibration.overlap import evaluation_items, leaked, shared
from mlflow_quantgov.evidence.measure.calibration.sampling import sample, unrepresented
from mlflow_quantgov.evidence.measure.calibration.surface import MAX_CHARACTERS, most_different
from mlflow_quantgov.evidence.measure.calibration.views import FEWEST, compare_texts
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates.calibration import Calibration, DataRecord


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
    layers: ParentLayers | None = None,
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
        layers: The parent and the quantized model, to compare what the parent's layers see; None leaves that out.

    Raises:
        UsageError: A file does not exist or holds no documents.
        EvidenceError: A side has no document of two tokens, or a layer of the parent gives NaN.
    """
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
        leaked_documents=leaked(documents, evaluation_items(tasks) if tasks is not None else ()),
        searched_tasks=folder_digest(tasks) if tasks is not None else None,
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
        return (
            f"Not measured: likeness needs a production sample and at least {FEWEST} different documents on each side."
        )
    if found.unseen and overall(found.summary["tests"]) == "pass":
        return (
            f"{found.unseen:.0%} of the calibration text was not compared: it is copies of a few documents, or lies beyond the "
            f"first {MAX_CHARACTERS:,} characters of one. Keep each document once, and cut long ones into documents."
        )
    return " ".join(sentence for sentence in (_verdict(found), _lacking(found)) if sentence)


def _verdict(found: Calibration) -> str:
    """What the deciding test says: the first that fails, else the first that is inconclusive, else all."""
    tests = found.summary["tests"]
    for outcome in ("fail", "inconclusive"):
        one = next((test for test in tests if test["outcome"] == outcome), None)
        if one is not None:
            return _of_test(one, found)
    layers = ", by what the parent's layers see" if found.layers else ""
    return f"By lengths and words, by meaning, by phrases{layers} and to a classifier, calibration and production are alike."


def _of_test(test: dict[str, Any], found: Calibration) -> str:
    if test["name"] == PHRASES:
        said = _of_phrases(test, found)
    elif test["statistic"] == "area-under-curve":
        share = f"in {test['estimate']:.0%} of pairs (at most {test['threshold']:.0%} is accepted)"
        if test["outcome"] == "inconclusive" and test["documents_needed"] is None:
            return "The two files seem to hold near copies of the same documents, which proves nothing."
        said = f"A classifier tells the two apart {share}"
    else:
        words = {"surface": "By lengths, words and signs", "meaning": "By what they are about"}
        where = words.get(test["name"], "By what the parent's layers see")
        said = f"{where}, the two lie {max(test['estimate'], 0.0):.1%} of production's own spread apart (at most {test['threshold']:.0%} is accepted)"
    if test["outcome"] == "fail" and test["name"] == PHRASES:
        return f"{said}."
    if test["outcome"] == "fail":
        feature = found.most_different[0]
        differs = f"{feature['feature']}, {feature['calibration']:.3g} against {feature['production']:.3g}"
        return f"{said}; their surface differs most in {differs}."
    few = min(len(one.calibration) for one in found.likeness) < MIN_DOCUMENTS
    needed = test["documents_needed"]
    more = (
        f"at least {MIN_DOCUMENTS} documents on each side, better a few hundred"
        if few
        else f"about {needed:,} documents on each side would"
    )
    return f"{said}, which does not settle it: {more}{'' if few else ' settle it'}."


def _of_phrases(test: dict[str, Any], found: Calibration) -> str:
    scores = next(one for one in found.likeness if one.name == PHRASES)
    share = f"(told apart in {test['estimate']:.0%} of pairs; at most {test['threshold']:.0%} is accepted)"
    if area_under_curve(scores.calibration, scores.production) > 0.5:
        return f"The calibration documents repeat production's phrases more than production itself does, as copies do {share}"
    return f"The calibration documents put production's words in another order than production does {share}"


def _lacking(found: Calibration) -> str:
    lacking = [name for name in TEXT_TESTS if name not in {test["name"] for test in found.summary["tests"]}]
    if not lacking:
        return ""
    return f"Not measured: {', '.join(lacking)} (pip install 'mlflow-quantgov[calibration]')."


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
