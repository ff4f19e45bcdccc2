"""Statistics of "not worse": paired non-inferiority by clusters (see docs/explanation/statistics.md)."""

from mlflow_quantgov.evidence.statistics.bound import lower_mean_bound
from mlflow_quantgov.evidence.statistics.comparison import Comparison, clusters_needed_floor, compare
from mlflow_quantgov.evidence.statistics.records import Score, read_scores

__all__ = ["Comparison", "Score", "clusters_needed_floor", "compare", "lower_mean_bound", "read_scores"]
