"""Silence for libraries that talk."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, hints and log lines of other libraries on the terminal; what fails still raises.

    gptqmodel writes its log to the standard output, where `--json` promises one document and nothing else; the handlers
    of transformers keep the stream that they began with.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
