"""Who measured, with which versions; and one side's record of how it was run."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mlflow_quantgov.artifact.behaviour import behaviour_digest
from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.evidence.predicates.base import Provenance, Side
from mlflow_quantgov.version import __version__

RUNTIME_LIBRARIES = ("xllamacpp", "llama-cpp-python", "transformers", "torch", "onnxruntime", "onnxruntime-genai")
"""Distributions that may have run the model; those installed are recorded."""


def provenance(*distributions: str, imported: bool = False) -> Provenance:
    """Time, this package's version, and the versions of the libraries that took part."""
    return Provenance(
        measured_at=datetime.now(UTC), tool_version=__version__, libraries=installed(*distributions), imported=imported
    )


def installed(*distributions: str) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    libraries = {}
    for name in distributions:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return libraries


def side(weights: str, facts: RuntimeFacts, artifact: Path) -> Side:
    """How one model was run, as its runtime says.

    Args:
        weights: Weights digest of the model.
        facts: What the runtime said.
        artifact: The folder or file that was loaded; a description of an endpoint says nothing about what runs there.
    """
    return Side(
        weights=weights,
        behaviour=behaviour_digest(artifact) if facts.saw_bytes else None,
        runtime=facts.runtime,
        version=facts.version,
        twin=facts.twin,
        kernel=facts.kernel,
        dequantized=facts.dequantized if facts.saw_bytes else None,
        settings=facts.settings,
    )
