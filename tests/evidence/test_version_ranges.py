"""Ranges of versions against each other, asked at their corners and checked against many versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import BaseModel, ValidationError

from mlflow_quantgov.evidence.version_ranges import Specifier, admits, lies_within

VERSIONS = [Version(f"{major}.{minor}.{micro}") for major in range(4) for minor in range(4) for micro in range(3)]
clauses = st.builds(
    lambda operator, version: f"{operator}{version}",
    st.sampled_from([">=", "<=", ">", "<", "==", "!=", "~="]),
    st.sampled_from(["0.1", "1.0", "1.2", "2.0.1", "2.3", "3.1.2"]),
)
specifiers = st.lists(clauses, min_size=0, max_size=2).map(",".join)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (">=0.33,<1", ">=0.30", True),
        (">=0.10", ">=0.33", None),
        ("<0.10", ">=0.33", False),
        ("", ">=0.33", None),
        (">=0.10", "", True),
        ("==1.4.*", ">=1.4,<1.5", True),
        ("~=1.4.2", ">=1.4,<1.5", True),
        ("~=1.4", ">=1.4,<1.5", None),
        ("==9.0", ">=7.5", True),
        (">=9.0", "==9.0", None),
        (">1.0", ">=1.0", True),
        (">=1.0", ">1.0", None),
    ],
)
def test_ranges(inner: str, outer: str, expected: bool | None) -> None:
    assert lies_within(inner, outer) is expected


@given(specifiers, specifiers)
def test_no_version_contradicts_the_answer(inner: str, outer: str) -> None:
    """The corners see what every version of a grid sees."""
    inside = [one for one in VERSIONS if SpecifierSet(inner).contains(one)]
    found = {SpecifierSet(outer).contains(one) for one in inside}
    answer = lies_within(inner, outer)
    if answer is True:
        assert found <= {True}
    if answer is False:
        assert found <= {False}


def test_a_version_that_is_none_is_not_known() -> None:
    assert admits(">=1", "1.2") is True and admits(">=1", "0.9") is False
    assert admits(">=1", "b11434-abc") is None and admits("", "b11434-abc") is True


def test_a_specifier_that_does_not_parse_is_refused_with_its_text() -> None:
    class Holder(BaseModel):
        versions: Specifier = ""

    with pytest.raises(ValidationError, match="newest"):
        Holder(versions="newest")
