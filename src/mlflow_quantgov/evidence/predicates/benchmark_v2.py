"""A benchmark as version 2 summed it up: still read, no longer written."""

from __future__ import annotations

from typing import Any, ClassVar

from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark


class BenchmarkV2(Benchmark):
    """The records of version 3. Its summary holds what the rounds took against the least that the parent took anywhere, a short heat too.

    The gate judges these records as it judges those of version 3; the summary only has to be the one of its time.
    """

    VERSION: ClassVar[int] = 2

    def recompute(self) -> dict[str, Any]:
        """See `benchmark_summary.summarize`."""
        from mlflow_quantgov.evidence.predicates.benchmark_memory import memory_of_version_2
        from mlflow_quantgov.evidence.predicates.benchmark_summary import summarize

        return summarize(self, memory_of_version_2(self))
