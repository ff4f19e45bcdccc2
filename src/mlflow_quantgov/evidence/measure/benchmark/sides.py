"""The processes of both sides, and what each took."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_quantgov.evidence.measure.benchmark.heat import Heat
from mlflow_quantgov.evidence.measure.benchmark.process import ModelProcess
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Resources, Sample, SideName
from mlflow_quantgov.evidence.targets import TargetLoad


class Sides:
    """Both models: at once where memory allows, else one at a time. Use as a context manager.

    Args:
        runtime: Name of the runtime.
        heats: Of each side; one without a configuration does not run.
        together: Whether both may be in memory at once.
    """

    def __init__(self, runtime: str, heats: Mapping[SideName, Heat], *, together: bool) -> None:
        self._runtime, self._heats, self._together = runtime, heats, together
        self._open: dict[SideName, ModelProcess] = {}
        self._found: dict[SideName, Resources] = {"parent": Resources(), "quantized": Resources()}

    @property
    def loaded(self) -> tuple[SideName, ...]:
        """Sides that are in memory."""
        return tuple(self._open)

    def time(self, name: SideName, load: TargetLoad) -> Sample | None:
        """Run a load on a side; one that had to be loaded for it runs it twice, and the second time counts."""
        prepared = self._heats[name].prepared
        if prepared is None:
            return None
        if name not in self._open:
            if not self._together:
                self._close()
            self._open[name] = ModelProcess(self._runtime, prepared)
            self._open[name].time(load)
        return self._open[name].time(load)

    def resources(self) -> dict[SideName, Resources]:
        """What each side took so far."""
        for name in list(self._open):
            self._look(name)
        return self._found

    def _look(self, name: SideName) -> None:
        process, before = self._open[name], self._found[name]
        now = process.resources()
        peaks = {field: _most(getattr(before, field), getattr(now, field)) for field in ("peak_bytes", "device_bytes")}
        self._found[name] = now.model_copy(update=peaks)

    def _close(self) -> None:
        for name in list(self._open):
            self._look(name)
            self._open.pop(name).close()

    def __enter__(self) -> Sides:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for process in self._open.values():
            process.close()


def _most(*bytes_: int | None) -> int | None:
    return max((one for one in bytes_ if one is not None), default=None)
