"""Which kernel serves these weights on the target: the table's word, and what the runtime here really selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.artifact.runtimes.interface import RuntimeFacts
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.kernel_table import lookup
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.predicates import Kernels, Side
from mlflow_quantgov.evidence.targets import Target

KERNEL_LIBRARIES = ("bitsandbytes", "torchao", "gptqmodel", "compressed-tensors", "kernels", "triton")
"""Distributions that bring kernels to a runtime; those installed are recorded."""


def confirm(
    model: Path,
    quantization: Quantization,
    target: Target,
    *,
    weights: str,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Kernels:
    """Look the weights up in the table, and load them in the target's runtime where it is installed here.

    Args:
        model: Folder or file.
        quantization: What inspection found.
        target: The deployment.
        weights: Weights digest of the model.
        cache: Folder for converted twins.
        progress: Called with a message and a fraction from 0 to 1.
    """
    report = progress or (lambda message, fraction: None)
    report("looking up the table", 0.1)
    common: dict[str, Any] = {
        "provenance": provenance(*RUNTIME_LIBRARIES, *KERNEL_LIBRARIES),
        "target": target.name,
        "target_digest": target.digest,
        "lookup": lookup(quantization, target),
    }
    try:
        adapter = find_runtime(target.runtime)
        reason = adapter.reason_not_loadable(model)
        if reason is None:
            report("loading the model", 0.3)
            with adapter.open(model, cache=cache) as runtime:
                facts = runtime.facts()
            report("done", 1.0)
            return Kernels.measured(**common, **_probed(facts, side(weights, facts, model)))
    except QuantgovError as error:
        reason = error.what
    return Kernels.measured(**common, probed=False, not_probed_because=reason[:1000])


def _probed(facts: RuntimeFacts, seen: Side) -> dict[str, Any]:
    """The records of a probe: what the runtime said, and on which machine."""
    machine = this_machine()
    built = facts.instruction_sets
    return {
        "probed": True,
        "side": seen,
        "dequantized": seen.dequantized,
        "expanded_share": facts.expanded_share,
        "emulated_share": facts.emulated_share,
        "operators": facts.operators,
        "instruction_sets": tuple(one for one in machine.cpu_flags if built is None or one in built),
        "unused_instruction_sets": tuple(one for one in machine.cpu_flags if built is not None and one not in built),
        "fingerprint": machine if facts.saw_bytes else None,
        "resident_bytes": facts.resident_bytes,
        "parameter_types": facts.parameter_types,
    }
