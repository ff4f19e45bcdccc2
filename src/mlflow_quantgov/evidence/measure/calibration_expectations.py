"""A small suite of great-expectations on calibration documents, where that library is installed."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from typing import Any

from mlflow_quantgov.errors import require

SHORTEST, LONGEST = 20, 100_000
"""Characters of a document that can teach a quantizer anything, and that some tool still reads whole."""
MOSTLY = 0.95
"""Share of documents whose length must lie between."""


def installed() -> bool:
    """Whether great-expectations is there (importing it takes seconds)."""
    return importlib.util.find_spec("great_expectations") is not None


def check_documents(documents: Sequence[str]) -> dict[str, Any]:
    """Not empty, no copies, lengths within reason.

    Args:
        documents: The calibration documents, empty ones included.

    Returns:
        `evaluated` (number of expectations), `failed` (their names), `library` (name and version).

    Raises:
        MissingExtraError: great-expectations is not installed.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    purpose = "check calibration data"
    gx: Any = require("great_expectations", extra="calibration", purpose=purpose)
    pandas: Any = require("pandas", extra="calibration", purpose=purpose)
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    frame = pandas.DataFrame({"text": [document.strip() or None for document in documents]})
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("documents").add_dataframe_asset("documents")
    definition = batch.add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(
        name="calibration",
        expectations=[
            gx.expectations.ExpectColumnValuesToNotBeNull(column="text"),
            gx.expectations.ExpectColumnValuesToBeUnique(column="text"),
            gx.expectations.ExpectColumnValueLengthsToBeBetween(
                column="text", min_value=SHORTEST, max_value=LONGEST, mostly=MOSTLY
            ),
        ],
    )
    result = definition.get_batch(batch_parameters={"dataframe": frame}).validate(suite)
    return {
        "evaluated": len(result.results),
        "failed": [one.expectation_config.type for one in result.results if not one.success],
        "library": f"great-expectations {gx.__version__}",
    }
