"""Entries of configs are looked up as if each were held against each name."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.formats.module_names import ModuleNames, UnknownPatternError
from mlflow_quantgov.artifact.formats.patterns import Effort

PARTS = st.sampled_from(["a", "ab", "b1", "0", "1", "12"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6)
ENTRIES = st.lists(st.sampled_from(["a", "b", "1", "0", "2", ".", r"\.", "[0-1]", r"\d", "?", ".*", "(?!1)", "|", "+"]),
                   min_size=1, max_size=6).map("".join)  # fmt: skip
STARS = st.lists(st.sampled_from(["a", "b", "1", "2", ".", "*", "?", "[0-1]", "[!1]"]), min_size=1, max_size=6).map(
    "".join
)


@given(names=NAMES, pattern=ENTRIES)
def test_a_pattern_finds_what_re_finds(names: list[str], pattern: str) -> None:
    try:
        wanted = {name for name in names if re.match(pattern, name)}
    except re.error:
        return
    try:
        found = ModuleNames(names, set()).of_pattern(pattern)
    except UnknownPatternError:
        return
    assert found in wanted if wanted else found is None


@given(names=NAMES, entry=STARS)
def test_stars_find_what_fnmatch_finds(names: list[str], entry: str) -> None:
    wanted = {name for name in names if fnmatchcase(name, entry)}
    found = ModuleNames(names, set()).of_stars(entry)
    assert found in wanted if wanted else found is None


@given(names=NAMES, entry=st.lists(PARTS, min_size=1, max_size=3).map(".".join))
def test_parts_and_ends_are_found(names: list[str], entry: str) -> None:
    modules = ModuleNames(names, set())
    inside = {name for name in names if f".{entry}." in f".{name}."}
    found = modules.of_parts(entry)
    assert found in inside if inside else found is None
    ends = {name for name in names if name.endswith(entry)}
    found = modules.ending(entry)
    assert found in ends if ends else found is None


@given(names=NAMES, entries=NAMES, pattern=st.sampled_from([[], ["a"], [r".*\.1$"]]))
def test_what_no_list_names_is_what_is_left(names: list[str], entries: list[str], pattern: list[str]) -> None:
    left = {
        name
        for name in names
        if not any(f".{name}".endswith(f".{entry}") or f".{entry}".endswith(f".{name}") for entry in entries)
        and not any(re.match(one, name) for one in pattern)
    }
    assert set(ModuleNames(names, set()).without(entries, pattern)) == left


def test_dots_are_dots_only_in_names_that_are_stored() -> None:
    modules = ModuleNames(["model.layers.0.down_proj"], {"model", "layers", "0", "down_proj", "gate"})
    assert modules.knows_parts("model.layers.0.gate")
    assert not modules.knows_parts("model.layers.0.down.proj")
    assert modules.of_pattern("model.layers.0.down.proj", at_boundary=True) == "model.layers.0.down_proj"


def test_thousands_of_involved_patterns_are_given_up() -> None:
    modules = ModuleNames([f"model.layers.{layer}.mlp.up_proj" for layer in range(64)], set(), Effort(200_000))
    with pytest.raises(UnknownPatternError, match="zz"):
        for at in range(100_000):
            modules.of_pattern(f"(?!(.*)*8{at})zz")
