"""Ctrl-C while llama.cpp calls back is not lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
from mlflow_quantgov.artifact.runtimes.llama_cpp.interrupts import interrupts_wait


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever runs tests in the background has them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_a_load_takes_effect_after_it() -> None:
    """Inside a callback it was printed, and the measurement went on."""
    reached = False
    with pytest.raises(KeyboardInterrupt), library().captured_log():
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_not_swallowed_by_an_error_either() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError


def test_nothing_is_changed_where_nobody_interrupted_or_another_thread_loads() -> None:
    def load() -> None:
        with interrupts_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    with interrupts_wait():
        pass
    assert seen == [signal.default_int_handler] == [signal.getsignal(signal.SIGINT)]


def test_who_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_wait():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
