"""Speed and memory of a version against its parent in that one's fastest lossless configuration, on this machine."""

from __future__ import annotations

from mlflow_quantgov.evidence.measure.benchmark.run import Effort, run
from mlflow_quantgov.evidence.measure.benchmark.served import run_served

__all__ = ["Effort", "run", "run_served"]
