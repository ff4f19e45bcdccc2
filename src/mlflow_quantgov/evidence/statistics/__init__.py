"""Statistics of "not worse": paired non-inferiority by clusters (see docs/explanation/statistics.md)."""

from mlflow_quantgov.evidence.statistics.bound import lower_mean_bound
from mlflow_quantgov.evidence.statistics.comparison import Comparison, compare
from mlflow_quantgov.evidence.statistics.expected import Expected, expect, expect_as_pilot
from mlflow_quantgov.evidence.statistics.planning import Plan, clusters_needed_floor, plan, power_at
from mlflow_quantgov.evidence.statistics.records import Score, read_scores

__all__ = [
    "Comparison",
    "Expected",
    "Plan",
    "Score",
    "clusters_needed_floor",
    "compare",
    "expect",
    "expect_as_pilot",
    "lower_mean_bound",
    "plan",
    "power_at",
    "read_scores",
]
