"""The public operations on a registered version: measure, attach, check, promote, roll back.

Each measuring function finds the version's files and its parent's, measures on this machine, and attaches the
statement: the gate takes in the bytes where there is one, and a copy goes beside the model for people to read.
"""

from __future__ import annotations

from mlflow_quantgov.api.approving import approve, recheck
from mlflow_quantgov.api.archiving import archive, drill, restore
from mlflow_quantgov.api.deciding import attach, check, load_model, promote, report, waive
from mlflow_quantgov.api.evaluating import evaluate, import_scores
from mlflow_quantgov.api.measuring import assess_calibration, benchmark, confirm_kernels, measure_fidelity
from mlflow_quantgov.api.measuring_all import Given, Measured, Step, measure_all
from mlflow_quantgov.api.planning import EvaluationPlan, plan_evaluation
from mlflow_quantgov.api.recipes import quantize, reproduce
from mlflow_quantgov.api.spot_checking import spot_check
from mlflow_quantgov.api.training import record_training
from mlflow_quantgov.production.promotion import Rollback, rollback

__all__ = [
    "EvaluationPlan",
    "Given",
    "Measured",
    "Rollback",
    "Step",
    "approve",
    "archive",
    "assess_calibration",
    "attach",
    "benchmark",
    "check",
    "confirm_kernels",
    "drill",
    "evaluate",
    "import_scores",
    "load_model",
    "measure_all",
    "measure_fidelity",
    "plan_evaluation",
    "promote",
    "quantize",
    "recheck",
    "record_training",
    "report",
    "reproduce",
    "restore",
    "rollback",
    "spot_check",
    "waive",
]
