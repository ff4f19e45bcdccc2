"""Govern quantized language models in MLflow: measured evidence before a protected alias or stage.

Importing this package costs next to nothing: every name below is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlflow_quantgov.version import __version__

# Public name -> (module, attribute).
_EXPORTS: dict[str, tuple[str, str]] = {
    "Calibration": ("mlflow_quantgov.evidence.calibration_data", "CalibrationData"),
    "Comparison": ("mlflow_quantgov.evidence.statistics", "Comparison"),
    "Decision": ("mlflow_quantgov.policy.decision", "Decision"),
    "Recipe": ("mlflow_quantgov.artifact.quantizers.recipe", "Recipe"),
    "QuantgovError": ("mlflow_quantgov.errors", "QuantgovError"),
    "Statement": ("mlflow_quantgov.evidence.statement", "Statement"),
    "approve": ("mlflow_quantgov.api", "approve"),
    "archive": ("mlflow_quantgov.api", "archive"),
    "assess_calibration": ("mlflow_quantgov.api", "assess_calibration"),
    "attach": ("mlflow_quantgov.api", "attach"),
    "benchmark": ("mlflow_quantgov.api", "benchmark"),
    "check": ("mlflow_quantgov.api", "check"),
    "compare": ("mlflow_quantgov.evidence.statistics", "compare"),
    "confirm_kernels": ("mlflow_quantgov.api", "confirm_kernels"),
    "drill": ("mlflow_quantgov.api", "drill"),
    "evaluate": ("mlflow_quantgov.api", "evaluate"),
    "get_default_conda_env": ("mlflow_quantgov.flavor", "get_default_conda_env"),
    "get_default_pip_requirements": ("mlflow_quantgov.flavor", "get_default_pip_requirements"),
    "import_scores": ("mlflow_quantgov.api", "import_scores"),
    "inspect": ("mlflow_quantgov.artifact.inspect", "inspect"),
    "load_model": ("mlflow_quantgov.api", "load_model"),
    "log_model": ("mlflow_quantgov.flavor", "log_model"),
    "log_parent": ("mlflow_quantgov.flavor", "log_parent"),
    "Given": ("mlflow_quantgov.api", "Given"),
    "measure_all": ("mlflow_quantgov.api", "measure_all"),
    "measure_fidelity": ("mlflow_quantgov.api", "measure_fidelity"),
    "plan_evaluation": ("mlflow_quantgov.api", "plan_evaluation"),
    "plan_release": ("mlflow_quantgov.release_planning", "plan_release"),
    "promote": ("mlflow_quantgov.api", "promote"),
    "quantize": ("mlflow_quantgov.api", "quantize"),
    "recheck": ("mlflow_quantgov.api", "recheck"),
    "record_training": ("mlflow_quantgov.api", "record_training"),
    "reproduce": ("mlflow_quantgov.api", "reproduce"),
    "rollback": ("mlflow_quantgov.api", "rollback"),
    "save_model": ("mlflow_quantgov.flavor", "save_model"),
    "spot_check": ("mlflow_quantgov.api", "spot_check"),
    "waive": ("mlflow_quantgov.api", "waive"),
}

__all__ = [
    "Calibration",
    "Comparison",
    "Decision",
    "Given",
    "QuantgovError",
    "Recipe",
    "Statement",
    "__version__",
    "approve",
    "archive",
    "assess_calibration",
    "attach",
    "benchmark",
    "check",
    "compare",
    "confirm_kernels",
    "drill",
    "evaluate",
    "get_default_conda_env",
    "get_default_pip_requirements",
    "import_scores",
    "inspect",
    "load_model",
    "log_model",
    "log_parent",
    "measure_all",
    "measure_fidelity",
    "plan_evaluation",
    "plan_release",
    "promote",
    "quantize",
    "recheck",
    "record_training",
    "reproduce",
    "rollback",
    "save_model",
    "spot_check",
    "waive",
]

if TYPE_CHECKING:
    from mlflow_quantgov.api import (
        Given,
        approve,
        archive,
        assess_calibration,
        attach,
        benchmark,
        check,
        confirm_kernels,
        drill,
        evaluate,
        import_scores,
        load_model,
        measure_all,
        measure_fidelity,
        plan_evaluation,
        promote,
        quantize,
        recheck,
        record_training,
        reproduce,
        rollback,
        spot_check,
        waive,
    )
    from mlflow_quantgov.artifact.inspect import inspect
    from mlflow_quantgov.artifact.quantizers.recipe import Recipe
    from mlflow_quantgov.errors import QuantgovError
    from mlflow_quantgov.evidence.calibration_data import CalibrationData as Calibration
    from mlflow_quantgov.evidence.statement import Statement
    from mlflow_quantgov.evidence.statistics import Comparison, compare
    from mlflow_quantgov.flavor import (
        get_default_conda_env,
        get_default_pip_requirements,
        log_model,
        log_parent,
        save_model,
    )
    from mlflow_quantgov.policy.decision import Decision
    from mlflow_quantgov.release_planning import plan_release


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted(__all__)
