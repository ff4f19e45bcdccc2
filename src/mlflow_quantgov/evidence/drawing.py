"""Which items of a task evaluation are measured again: the first ones in an order that follows from a secret drawn afterwards."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

Item = tuple[str, int]
"""Task, and the item's place in that task's records."""


def new_seed() -> str:
    """32 random bytes, in hex."""
    return secrets.token_hex(32)


def places_of(counts: Sequence[tuple[str, int]]) -> list[Item]:
    """Every item of an evaluation.

    Args:
        counts: Each task with its number of items.
    """
    return [(task, number) for task, count in counts for number in range(count)]


def drawn(seed: str, places: Sequence[Item], items: int) -> list[Item]:
    """The first items in the order that a seed gives, in the order of the records.

    Each item is ordered by the sha256 of seed, task and place, so that whoever asks for more gets the same ones and others, never
    another choice.

    Args:
        seed: As `new_seed` makes it.
        places: Every item.
        items: How many.
    """
    order = sorted(places, key=lambda one: hashlib.sha256(f"{seed}\0{one[0]}\0{one[1]}".encode()).digest())
    chosen = set(order[:items])
    return [one for one in places if one in chosen]
