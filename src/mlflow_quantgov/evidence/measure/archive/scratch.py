"""Folders of what is not finished yet: locked while their owner lives, removed by the next one where he was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder of one's own, removed at the end; those that killed owners left beside it are removed first.

    Args:
        parent: Folder to make it in.
        prefix: How its name begins. Folders of this user with such a name that nobody holds are taken for leftovers.

    Raises:
        OSError: It cannot be made.
    """
    _remove_leftovers(parent, prefix)
    own, lock = _own_folder(parent, prefix)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(lock)


def _own_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A locked folder; made again where somebody tidied it away before the lock was ours."""
    while True:
        own = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(own, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = own.is_dir()
        except BlockingIOError:  # somebody is about to tidy it away
            ours = False
        except OSError:  # some network file systems know no locks: then nobody tidies either
            ours = True
        if ours:
            return own, lock
        os.close(lock)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for left in parent.iterdir():
        if not left.name.startswith(prefix):
            continue
        try:
            lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(lock)
