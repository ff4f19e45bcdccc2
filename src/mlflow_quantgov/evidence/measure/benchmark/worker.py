"""A process that loads one model and times it when asked: its memory is that model's, and its threads are its own.

It reads one JSON request a line from its standard input and answers one line on its standard output. It ends with its
input, and with the process that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import QuantgovError

_DIE_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of prctl(2)."""


class Worker:
    """Answers requests about one model."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What one request gives.

        Args:
            request: `do` names what to do: `open`, `time` or `memory`; the rest are its arguments.
        """
        doing: dict[str, Callable[..., dict[str, Any]]] = {
            "open": self._open,
            "time": self._time,
            "memory": self._memory,
        }
        arguments = dict(request)
        return doing[arguments.pop("do")](**arguments)

    def _open(self, runtime: str, path: str, settings: dict[str, Any]) -> dict[str, Any]:
        adapter = find_runtime(runtime)
        adapter.load_libraries(Path(path))
        baseline = _status("VmRSS")
        start = time.perf_counter()
        self._runtime = adapter.open(Path(path), **settings)
        seconds = time.perf_counter() - start
        return {"facts": asdict(self._runtime.facts()), "seconds": seconds, "baseline": baseline}

    def _time(self, batch: int, prompt_tokens: int, output_tokens: int) -> dict[str, Any]:
        assert self._runtime is not None, "open comes first"
        timing = self._runtime.time(batch=batch, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        return asdict(timing)

    def _memory(self) -> dict[str, Any]:
        return {"peak": _status("VmHWM"), "device": _device_peak()}


def _status(name: str) -> int | None:
    """A size in bytes of /proc/self/status; None where the system has no such file.

    `VmHWM` counts from the start of this program, unlike getrusage(2), whose peak a process inherits from the one that
    started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _device_peak() -> int | None:
    """Most bytes that torch held of the GPU; None where torch does not run there."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved())


def _own_output() -> TextIO:
    """The pipe to whoever asks; whatever else writes to the standard output of this process goes to the error output."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _be_expendable() -> None:
    """Have the kernel end this process first where memory runs out, and at once where its parent ends."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def main() -> None:
    """Answer until the input ends."""
    _be_expendable()
    pipe = _own_output()
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except QuantgovError as error:
            answer = {"error": {"kind": type(error).__name__} | error.to_dict()}
        except Exception as error:  # noqa: BLE001  (whatever a runtime raises is an answer: it did not run)
            answer = {"error": {"kind": type(error).__name__, "message": f"{type(error).__name__}: {error}"}}
        pipe.write(json.dumps(answer) + "\n")
        pipe.flush()


if __name__ == "__main__":
    main()
