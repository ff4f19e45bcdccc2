"""The seven mistakes, each committed on purpose in several ways, and good releases beside them that are let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from good_releases import GOOD
from whole_releases import Release, Shelf

Open = Callable[..., Shelf]


@pytest.mark.parametrize("release", GOOD, ids=[one.name for one in GOOD])
def test_a_good_release_is_let_through(shelf: Open, release: Release) -> None:
    found = shelf(release.floors)
    version = found.put(release)
    decision = found.decide(version)
    assert decision.allowed, decision.one_line()
    assert [one.answer for one in decision.self_audit] == ["yes"] * 5
    found.promote(version)
    assert str(found.store.get_model_version_by_alias("chat", "champion").version) == version
