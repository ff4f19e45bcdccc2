"""What an author says about calibration when logging: which data, which sample of production."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_quantgov.evidence.predicates.calibration import Calibration

if TYPE_CHECKING:
    from mlflow_quantgov.evidence.measure.calibration.activations import ParentLayers


@dataclass(frozen=True)
class CalibrationData:
    """The data that the quantizer saw, and a sample of what production sends (`mlflow_quantgov.Calibration`)."""

    data: str | Path
    """Text or JSONL file with `text` or `messages`."""
    production: str | Path | None = None
    """A sample of production traffic in the same form; without it, likeness is not measured."""
    source: str | None = None
    """Where the data came from, in words."""
    license: str | None = None
    tasks: str | Path | Sequence[str] | None = None
    """Task folder, or a list of names of tasks that lm-eval ships, whose items must not be among the data; without it, nobody
    looks for them."""

    def assess(
        self, noted: Sequence[str] = (), artifact: Path | None = None, layers: ParentLayers | None = None
    ) -> Calibration:
        """Read the data and compare it with production.

        Args:
            noted: Names of data sets that the artifact's own metadata give.
            artifact: The model, whose tokenizer counts the tokens.
            layers: The parent and the quantized model, to compare what the parent's layers see.

        Raises:
            UsageError: A file does not exist or holds no documents.
        """
        from mlflow_quantgov.evidence.measure.calibration import assess

        return assess(
            Path(self.data),
            Path(self.production) if self.production is not None else None,
            source=self.source,
            license=self.license,
            tasks=Path(self.tasks) if isinstance(self.tasks, str | Path) else self.tasks,
            noted=noted,
            artifact=artifact,
            layers=layers,
        )
