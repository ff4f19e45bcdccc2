"""What a container leaves this process of the machine: limits and events of Linux control groups, version 1 or 2.

Files and their meaning: kernel documentation, admin-guide/cgroup-v2 and admin-guide/cgroup-v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 2**62
"""Version 1 writes the largest multiple of the page size below 2**63 where there is no limit."""


@dataclass(frozen=True)
class ControlGroups:
    """The groups of one process. A limit of any group above it holds too.

    Attributes:
        mounted: Where the hierarchies lie.
        membership: File that says which groups the process is in.
    """

    mounted: Path = Path("/sys/fs/cgroup")
    membership: Path = Path("/proc/self/cgroup")

    def cpu_limit(self) -> float | None:
        """CPUs that all processes of the group may use together (bandwidth quota); None without a limit."""
        found = []
        for folder in self._folders("cpu"):
            words = _words(folder / "cpu.max") or [
                *_words(folder / "cpu.cfs_quota_us"),
                *_words(folder / "cpu.cfs_period_us"),
            ]
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
                found.append(int(words[0]) / int(words[1]))
        return min(found, default=None)

    def memory_limit(self) -> int | None:
        """Bytes that all processes of the group may hold together; None without a limit."""
        found = []
        for folder in self._folders("memory"):
            words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
            if words and words[0].isdigit() and int(words[0]) < _NO_LIMIT:
                found.append(int(words[0]))
        return min(found, default=None)

    def memory_used(self) -> int | None:
        """Bytes that the innermost limited group holds, without the file cache that can be given back; None without a limit."""
        for folder in self._folders("memory"):
            words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
            if not words or not words[0].isdigit() or int(words[0]) >= _NO_LIMIT:
                continue
            used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
            statistics = _table(folder / "memory.stat")
            cache = statistics.get("inactive_file", statistics.get("total_inactive_file", 0))
            return max(0, int(used[0]) - cache) if used and used[0].isdigit() else None
        return None

    def out_of_memory_kills(self) -> int | None:
        """Processes of the group that the kernel has killed for memory; None where it does not count them."""
        for folder in self._folders("memory"):
            counts = _table(folder / "memory.events") or _table(folder / "memory.oom_control")
            if "oom_kill" in counts:
                return counts["oom_kill"]
        return None

    def throttled_periods(self) -> int | None:
        """Periods in which the CPU quota stopped the group; None where there is no quota to do so."""
        if self.cpu_limit() is None:
            return None
        return next(
            (
                counts["nr_throttled"]
                for folder in self._folders("cpu")
                if "nr_throttled" in (counts := _table(folder / "cpu.stat"))
            ),
            None,
        )

    def _folders(self, controller: str) -> Iterator[Path]:
        """The process's group and those above it, of the hierarchy with a controller. In a container the inner root is the mount."""
        for line in _text(self.membership).splitlines():
            _, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if names and controller not in names.split(","):
                continue
            root = self.mounted / (controller if names else "")
            if names and not root.is_dir():
                root = self.mounted / names
            if not names and not (root / "cgroup.controllers").is_file():
                root = self.mounted / "unified"
            parts = [part for part in path.split("/") if part not in {"", ".."}]
            for depth in range(len(parts), -1, -1):
                if (folder := root.joinpath(*parts[:depth])).is_dir():
                    yield folder


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a whole number."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
