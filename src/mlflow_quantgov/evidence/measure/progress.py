"""How a measurement says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, from 0 to 1."""
