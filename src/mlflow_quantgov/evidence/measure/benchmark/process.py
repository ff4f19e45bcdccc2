"""The side of a benchmark's worker that asks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import mlflow_quantgov
from mlflow_quantgov import errors
from mlflow_quantgov.artifact.runtimes.interface import Prepared, RequestTiming, RuntimeFacts, Timing
from mlflow_quantgov.errors import MissingExtraError, QuantgovError, UsageError, one_line
from mlflow_quantgov.evidence.predicates.benchmark import Speed
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Cause, Request, Resources, Sample
from mlflow_quantgov.evidence.targets import TargetLoad

_WORKER = "mlflow_quantgov.evidence.measure.benchmark.worker"
_PATIENCE = 1800
"""Seconds until a model that still loads, or a load that still runs, counts as not doing so."""
_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "cannot allocate",
    "can't allocate",
    "unable to allocate",
    "failed to allocate",
    "could not make room",
    "bad_alloc",
    "memoryerror",
)
"""What allocators say, in small letters."""


class Timed(Protocol):
    """Whatever can be timed: a model in a process of its own, or a served one."""

    def time(self, load: TargetLoad) -> Sample:
        """Run a load once."""


class DidNotRunError(Exception):
    """A side that does not load or run here. It is a finding, and no error of whoever asked.

    Attributes:
        cause: Why not.
        words: What it, or the system, said.
        raised: The worker's own error, where it raised one of ours.
        mendable: Whether whoever asked has to mend it: a library that is not installed, a load that fits no context.
    """

    def __init__(
        self, cause: Cause, words: str, raised: QuantgovError | None = None, *, mendable: bool = False
    ) -> None:
        """Keep the parts apart."""
        super().__init__(words)
        self.cause = cause
        self.words = one_line(words)[:900].rstrip(".")
        self.raised = raised
        self.mendable = mendable


class ModelProcess:
    """One model, loaded in a process of its own. Use as a context manager.

    Args:
        runtime: Name of the runtime.
        prepared: What to open, and how.
        patience: Seconds to wait for one answer.

    Raises:
        DidNotRunError: It does not load.
    """

    def __init__(self, runtime: str, prepared: Prepared, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(_search_path())},
        )
        try:
            opened = self._ask(do="open", runtime=runtime, path=str(prepared.path), settings=prepared.settings)
        except BaseException:
            self.close()
            raise
        facts = RuntimeFacts(**opened["facts"])
        self.facts = replace(facts, twin=prepared.twin or facts.twin, settings=facts.settings | prepared.notes)
        self.load_seconds: float = opened["seconds"]
        self.baseline_bytes: int | None = opened["baseline"]

    def time(self, load: TargetLoad) -> Sample:
        """Run a load once.

        Raises:
            DidNotRunError: It fails, or its process ends.
        """
        answer = self._ask(do="time", **load.model_dump())
        requests = tuple(RequestTiming(**one) for one in answer.pop("requests"))
        return sample_of(Timing(**answer, requests=requests))

    def resources(self) -> Resources:
        """What it took so far."""
        answer = self._ask(do="memory")
        return Resources(
            load_seconds=self.load_seconds,
            baseline_bytes=self.baseline_bytes,
            peak_bytes=answer["peak"],
            weight_bytes=self.facts.resident_bytes,
            device_bytes=answer["device"],
        )

    def close(self) -> None:
        """End the process."""
        process = self._process
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._said.close()

    def __enter__(self) -> ModelProcess:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], self._patience)
            if not ready:
                raise DidNotRunError("time", f"no answer within {self._patience:.0f} seconds")
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _reported(answer["error"])
        return answer

    def _ended(self) -> DidNotRunError:
        """What the end of the process means. Where memory runs out, the kernel ends it by SIGKILL and says nothing."""
        code = self._process.wait()
        self._said.seek(max(0, os.fstat(self._said.fileno()).st_size - 2000))
        said = one_line(self._said.read().decode("utf-8", "replace"))[-300:]
        if code == -signal.SIGKILL:
            return DidNotRunError(
                "memory", "its process was ended by SIGKILL, as the kernel does where memory runs out"
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return DidNotRunError(_cause(said, "crashed"), f"its process ended with {how}{': ' if said else ''}{said}")


def _search_path() -> list[str]:
    """Where this process finds modules, this very package first: a worker of another version would measure otherwise."""
    own = Path(mlflow_quantgov.__file__).resolve().parents[1]
    return list(dict.fromkeys([str(own), *(str(Path(one).resolve()) for one in sys.path if one)]))


def sample_of(timing: Timing) -> Sample:
    """A timed run as it is recorded."""
    return Sample(
        prefill=timing.prefill_tokens_per_second,
        decode=timing.decode_tokens_per_second,
        requests=tuple(Request(first=one.first, last=one.last) for one in timing.requests),
    )


def best(samples: Sequence[Sample]) -> Speed:
    """The fastest of some runs, phase by phase: whatever disturbs a run makes it slower."""
    return Speed(prefill=max(one.prefill for one in samples), decode=max(one.decode for one in samples))


def forget_files(path: Path) -> None:
    """Ask the system to put files out of its page cache, so that the next load reads them from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in (one for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()):
        with suppress(OSError), file.open("rb") as opened:
            os.fsync(opened.fileno())  # pages that were not yet written stay
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _reported(error: dict[str, str]) -> DidNotRunError:
    """What the worker's error means."""
    words, kind = error["message"], error["kind"]
    cause = _cause(f"{kind} {words}", "refused")
    if "why" not in error:
        return DidNotRunError(cause, words)
    known = getattr(errors, kind, QuantgovError)
    # That of a missing library is built from other parts; its words are the same.
    made = QuantgovError if known is MissingExtraError else known
    mendable = cause != "memory" and issubclass(known, UsageError | MissingExtraError)
    return DidNotRunError(cause, words, made(words, why=error["why"], fix=error["fix"]), mendable=mendable)


def _cause(words: str, otherwise: Cause) -> Cause:
    return "memory" if any(one in words.lower() for one in _MEMORY_WORDS) else otherwise
