"""What a statement may say: one pydantic model per kind, each with a versioned type URI."""

from __future__ import annotations

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.predicates.approval import Approval, Withdrawal
from mlflow_quantgov.evidence.predicates.archive import Archive, ArchivedFile, Drill
from mlflow_quantgov.evidence.predicates.base import Predicate, Provenance, Side
from mlflow_quantgov.evidence.predicates.benchmark import BenchmarkV1, Fingerprint, Load, Round
from mlflow_quantgov.evidence.predicates.benchmark_v2 import BenchmarkV2
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark
from mlflow_quantgov.evidence.predicates.calibration import Calibration, DataRecord, Likeness
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord, Fidelity, FidelityV1
from mlflow_quantgov.evidence.predicates.kernels import Kernels, Lookup
from mlflow_quantgov.evidence.predicates.reproduction import Difference, MadePart, Reproduction
from mlflow_quantgov.evidence.predicates.spot_check import Again, CheckedItem, CheckedTask, Shape, SpotCheck, Tolerance
from mlflow_quantgov.evidence.predicates.task_eval import Answer, TaskEval, TaskItem, TaskResult
from mlflow_quantgov.evidence.predicates.training import Training, TrainingV1
from mlflow_quantgov.evidence.predicates.waiver import Waiver, WaiverV1

PREDICATES: dict[str, type[Predicate]] = {
    predicate.KIND: predicate
    for predicate in (
        TaskEval,
        SpotCheck,
        Fidelity,
        Calibration,
        Kernels,
        Benchmark,
        Archive,
        Drill,
        Training,
        Reproduction,
        Waiver,
        Approval,
        Withdrawal,
    )
}
EARLIER: tuple[type[Predicate], ...] = (FidelityV1, BenchmarkV1, BenchmarkV2, TrainingV1, WaiverV1)
"""Versions that are still read, and no longer written."""
PERMISSIONS = frozenset({Waiver.KIND, Approval.KIND, Withdrawal.KIND})
"""Kinds by which somebody lets something through, or no longer: they measure nothing, and count only where they were attached."""

__all__ = [
    "EARLIER",
    "PERMISSIONS",
    "PREDICATES",
    "Again",
    "Answer",
    "Approval",
    "Archive",
    "ArchivedFile",
    "Benchmark",
    "BenchmarkV1",
    "BenchmarkV2",
    "Calibration",
    "CheckedItem",
    "CheckedTask",
    "DataRecord",
    "Difference",
    "DocumentRecord",
    "Drill",
    "Fidelity",
    "FidelityV1",
    "Fingerprint",
    "Kernels",
    "Likeness",
    "Load",
    "Lookup",
    "MadePart",
    "Predicate",
    "Provenance",
    "Reproduction",
    "Round",
    "Shape",
    "Side",
    "SpotCheck",
    "TaskEval",
    "TaskItem",
    "TaskResult",
    "Tolerance",
    "Training",
    "TrainingV1",
    "Waiver",
    "WaiverV1",
    "Withdrawal",
    "kind_of_type",
    "predicate_class",
]


def predicate_class(type_uri: str) -> type[Predicate]:
    """The model that reads a predicate type.

    Raises:
        EvidenceError: No predicate of that type and version is known.
    """
    for predicate in (*PREDICATES.values(), *EARLIER):
        if predicate.type_uri() == type_uri:
            return predicate
    known = ", ".join(sorted(PREDICATES))
    raise EvidenceError(
        f"The predicate type {type_uri[:200]!r} is not known.",
        why=f"Only these kinds of evidence can be judged: {known}.",
        fix="quantgov schema",
    )


def kind_of_type(type_uri: str) -> str:
    """Short name (`task-eval`) of a predicate type URI."""
    return predicate_class(type_uri).KIND
