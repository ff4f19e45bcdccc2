"""Names that are one name, names that only look alike, and what no screen shows."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import destination_kind, looks_like_another, looks_like_gated, rule_for
from mlflow_quantgov.policy.names import fold, skeleton, unseen

SAME = [
    "Champion", "CHAMPION", "Ｃhampion", "champion ", " champion", "champion\n", "cham\u200bpion", "cham\u00adpion",
    "\u202echampion", "champion\ufe0f", "𝐜hampion", "ⓒhampion", "cham\u2060pion", "champio\U000e0100n",
]  # fmt: skip
ALIKE = ["champıon", "chаmpion", "chámpion", "cha\u0301mpion", "ch̶ampion", "CHAMPİON", "сhаmрiоn"]
POLICY = """
schema: quantgov/policy/v1
name: two rules
gates:
  full: {checks: [identity]}
rules:
  - {models: "prod-*", create: gated, destinations: {"@champion": full, Production: full}, other_destinations: open}
  - {models: "*", destinations: {"@champion": open}, other_destinations: open}
"""


@pytest.mark.parametrize("name", SAME)
def test_spellings_of_one_name_are_one_name(name: str) -> None:
    assert fold(name) == "champion"
    policy = load_policy()
    assert destination_kind(policy, "chat", f"@{name}") == "gated"


@pytest.mark.parametrize("name", ALIKE)
def test_what_looks_alike_has_one_skeleton(name: str) -> None:
    assert fold(name) != "champion"
    assert skeleton(name) == "champion"


def test_a_lookalike_of_a_gated_destination_is_named() -> None:
    policy = parse_policy(POLICY, source="test")
    for name in ALIKE:
        assert destination_kind(policy, "prod-chat", f"@{name}") == "open"
        assert looks_like_gated(policy, "prod-chat", f"@{name}") == "@champion"
        assert looks_like_gated(policy, "chat", f"@{name}") is None  # it is open there under every spelling
    assert looks_like_gated(policy, "prod-chat", "@candidate") is None
    assert looks_like_gated(policy, "prod-chat", "@Champion") is None  # gated as it stands


def test_a_lookalike_of_a_protected_model_is_named() -> None:
    policy = parse_policy(POLICY, source="test")
    for name in ("рrod-chat", "prоd-chat", "pröd-chat", "prod‐chat", "prod–chat"):
        assert looks_like_another(policy, name) == "prod-*" or fold(name) == "prod-chat"
    for name in ("prod-chat", "PROD-chat", "chat", "модель", "modèle"):
        assert looks_like_another(policy, name) is None
    assert rule_for(policy, "Ｐrod-chat") is policy.rules[0]


@pytest.mark.parametrize(
    "sign", ["\u200b", "\u202e", "\x00", "\x1b", "\n", "\u2066", "\u00ad", "\ufe0f", "\u3164", "\u2028"]
)
def test_what_no_screen_shows_is_named(sign: str) -> None:
    found = unseen(f"cham{sign}pion")
    assert found is not None and found.startswith(f"U+{ord(sign):04X} ")


@pytest.mark.parametrize("name", ["chat", "chat bot", "模型-7b", "modèle", "модель", "नमूना", "🙂", "iris.v2", "it's"])
def test_names_that_people_give_are_seen_whole(name: str) -> None:
    assert unseen(name) is None


@given(st.text())
def test_folding_and_the_skeleton_are_stable(name: str) -> None:
    assert fold(fold(name)) == fold(name)
    assert skeleton(skeleton(name)) == skeleton(name)
    assert skeleton(fold(name)) == skeleton(name)
    assert unicodedata.is_normalized("NFKC", fold(name))
    assert unseen(fold(name)) is None
