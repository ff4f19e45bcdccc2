"""Where the shipped policies, targets and kernel tables lie: beside the sources, or inside the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def policies_dir() -> Path:
    """The folder `policies/` of a checkout, else the copy that the wheel carries."""
    carried = _PACKAGE / "_policies"
    return carried if carried.is_dir() else _PACKAGE.parent.parent / "policies"
