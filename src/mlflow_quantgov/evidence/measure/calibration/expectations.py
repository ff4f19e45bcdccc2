"""A suite of great-expectations on calibration documents, where that library is installed.

What is expected of a document is worked out here, as columns of a table; great-expectations counts and judges. Only
counts and shares leave this module, never a text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.errors import require
from mlflow_quantgov.evidence.measure.calibration import languages
from mlflow_quantgov.evidence.measure.calibration.overlap import normalise
from mlflow_quantgov.evidence.measure.calibration.personal_data import KINDS, holds
from mlflow_quantgov.evidence.measure.calibration.text_encoding import FAULTS, shows

SHORTEST, LONGEST = 20, 100_000
"""Characters of a document that can teach a quantizer anything, and that some tool still reads whole."""
MAX_DOCUMENTS = 50_000
"""Documents that are judged; of more, those with the smallest digests, so that copies stay together."""
UNTOLD = "unknown"
"""What stands for the language of a text that is too short to tell."""
INSTALL = "pip install 'mlflow-quantgov[calibration]'"


@dataclass(frozen=True)
class _Expected:
    """One expectation: which column holds what, and how many documents may break it."""

    name: str
    share: float
    """Largest tolerated share of documents that break it."""
    values: Callable[[Sequence[str]], list[Any]]
    build: Callable[[Any, dict[str, Any]], Any]
    """From the library's expectations and the common arguments to one of them."""


def installed() -> bool:
    """Whether great-expectations is there (importing it takes seconds)."""
    return importlib.util.find_spec("great_expectations") is not None


def check_quality(documents: Sequence[str], production: Sequence[str] = (), *, wanted: bool = True) -> dict[str, Any]:
    """Check calibration documents, or say why they were not checked.

    Args:
        documents: The calibration documents, empty ones included.
        production: The production sample, whose languages are then the expected ones.
        wanted: False leaves it out, since the library takes seconds to load.

    Returns:
        `evaluated` (number of expectations), `failed` (their names), and `results`, one per expectation: `name`,
        `count` and `share` of the documents that break it, `threshold` (largest tolerated share), `outcome`. `documents` were judged. Where
        something was not checked, `not_checked` says why. `library` names what judged.
    """
    if not wanted:
        return {"evaluated": 0, "failed": [], "not_checked": "the quality of the documents was not asked for"}
    if not installed():
        return {
            "evaluated": 0,
            "failed": [],
            "not_checked": f"the quality of the documents, as great-expectations is not installed: {INSTALL}",
        }
    judged = _sample(documents)
    expected = list(_EXPECTED)
    notes: dict[str, Any] = {"documents": len(judged)}
    if languages.installed():
        expected.append(_language(judged, _sample(production)))
    else:
        notes["not_checked"] = f"languages, as {languages.LIBRARY} is not installed: {INSTALL}"
    return _validate(expected, judged) | notes


def _sample(documents: Sequence[str]) -> Sequence[str]:
    if len(documents) <= MAX_DOCUMENTS:
        return documents
    return sorted(documents, key=lambda one: hashlib.sha256(one.encode("utf-8", "replace")).digest())[:MAX_DOCUMENTS]


def _validate(expected: Sequence[_Expected], documents: Sequence[str]) -> dict[str, Any]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    purpose = "check calibration data"
    gx: Any = require("great_expectations", extra="calibration", purpose=purpose)
    pandas: Any = require("pandas", extra="calibration", purpose=purpose)
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    frame = pandas.DataFrame({one.name: pandas.Series(one.values(documents), dtype=object) for one in expected})
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("documents").add_dataframe_asset("documents")
    definition = batch.add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(
        name="calibration",
        expectations=[
            one.build(gx.expectations, {"column": one.name, "mostly": 1 - one.share, "meta": {"name": one.name}})
            for one in expected
        ],
    )
    found = definition.get_batch(batch_parameters={"dataframe": frame}).validate(suite)
    of_name = {one.expectation_config.meta["name"]: one for one in found.results}
    results = [_result(one, of_name[one.name]) for one in expected]
    return {
        "evaluated": len(results),
        "failed": [one["name"] for one in results if one["outcome"] == "fail"],
        "results": results,
        "library": f"great-expectations {gx.__version__}",
    }


def _result(expected: _Expected, found: Any) -> dict[str, Any]:
    count = int(found.result.get("unexpected_count", 0))
    # Empty documents are judged by the first expectation and by no other.
    judged = int(found.result["element_count"]) - int(found.result.get("missing_count", 0))
    return {
        "name": expected.name,
        "count": count,
        "share": round(count / judged, 6) if judged else 0.0,
        "threshold": expected.share,
        "outcome": "pass" if found.success else "fail",
    }


def _not_null(of: Any, arguments: dict[str, Any]) -> Any:
    return of.ExpectColumnValuesToNotBeNull(**arguments)


def _unique(of: Any, arguments: dict[str, Any]) -> Any:
    return of.ExpectColumnValuesToBeUnique(**arguments)


def _lengths(**bounds: int) -> Callable[[Any, dict[str, Any]], Any]:
    return lambda of, arguments: of.ExpectColumnValueLengthsToBeBetween(**arguments, **bounds)


def _none_of(of: Any, arguments: dict[str, Any]) -> Any:
    return of.ExpectColumnValuesToBeInSet(**arguments, value_set=["no"])


def _among(values: frozenset[str]) -> Callable[[Any, dict[str, Any]], Any]:
    return lambda of, arguments: of.ExpectColumnValuesToBeInSet(**arguments, value_set=sorted(values))


def _texts(documents: Sequence[str]) -> list[str | None]:
    return [document.strip() or None for document in documents]


def _plain(documents: Sequence[str]) -> list[str | None]:
    return [normalise(document) or None for document in documents]


def _flags(name: str, found: Callable[[str, str], bool]) -> Callable[[Sequence[str]], list[str]]:
    return lambda documents: ["yes" if found(name, document) else "no" for document in documents]


def _language(documents: Sequence[str], production: Sequence[str]) -> _Expected:
    """Documents in a language that production does not send; without production, in another than most are in."""
    found = languages.languages_of(documents)
    main = languages.main_language(found)
    wanted = languages.common_languages(languages.languages_of(production)) or frozenset({main} if main else ())
    told = [code or UNTOLD for code in found]
    return _Expected("other-language", 0.1, lambda _: told, _among(wanted | {UNTOLD}))


_EXPECTED = (
    _Expected("empty", 0.0, _texts, _not_null),
    _Expected("duplicate", 0.01, _texts, _unique),
    _Expected("duplicate-but-for-layout", 0.02, _plain, _unique),
    _Expected("too-short", 0.05, _texts, _lengths(min_value=SHORTEST)),
    _Expected("too-long", 0.05, _texts, _lengths(max_value=LONGEST)),
    *(_Expected(f"encoding: {name}", 0.01, _flags(name, shows), _none_of) for name in FAULTS),
    *(_Expected(f"personal-data: {name}", 0.0, _flags(name, holds), _none_of) for name in KINDS),
)
