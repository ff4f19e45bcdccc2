"""Who measured, with which versions; and one side's record of how it was run."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata

from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.evidence.predicates.base import Provenance, Side
from mlflow_quantgov.version import __version__


def provenance(*distributions: str, imported: bool = False) -> Provenance:
    """Time, this package's version, and the versions of the libraries that took part."""
    libraries = {}
    for name in distributions:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Provenance(measured_at=datetime.now(UTC), tool_version=__version__, libraries=libraries, imported=imported)


def side(weights: str, facts: RuntimeFacts) -> Side:
    """How one model was run, as its runtime says."""
    return Side(
        weights=weights,
        runtime=facts.runtime,
        version=facts.version,
        twin=facts.twin,
        kernel=facts.kernel,
        settings=facts.settings,
    )
