"""Where a version's files may lie: only below what the rule names, whole names compared, and never where nobody knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from releases import facts_of

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import Policy
from mlflow_quantgov.policy.stores import fault, objection

HERE = "mlflow-artifacts:/0/models/m-1/artifacts"
NAMES = st.lists(st.text("ab .-é", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."}), max_size=4)


def naming(*stores: str, **changes: Any) -> Policy:
    """The default policy with stores named for every model."""
    value = yaml.safe_load(load_policy().text)
    value["rules"][0] |= {"stores": list(stores), **changes}
    return parse_policy(yaml.safe_dump(value), source="test")


@pytest.mark.parametrize(
    ("address", "store", "below"),
    [
        (HERE, "mlflow-artifacts:/", True),
        (HERE, "mlflow-artifacts:/0/models/", True),
        (HERE, "mlflow-artifacts:/0/model", False),
        ("mlflow-artifacts://other:5000/0/models/m-1", "mlflow-artifacts:/", False),
        ("mlflow-artifacts:/my%20team/m-1", "mlflow-artifacts:/my team", True),
        ("s3://ours/models/m-1", "s3://ours", True),
        ("s3://ours/models/m-1", "s3://ours/models", True),
        ("s3://ours/models-of-others/m-1", "s3://ours/models", False),
        ("s3://ours.example.org/models/m-1", "s3://ours", False),
        ("s3://others/ours/m-1", "s3://ours", False),
        ("gs://ours/models/m-1", "s3://ours", False),
        ("s3://ours/models/../../others/m-1", "s3://ours", False),
        ("/srv/models/m-1", "file:///srv/models", True),
        ("file:///srv/models/m-1", "/srv/models/", True),
        ("/srv/models", "/srv/models", True),
        ("/srv", "/srv/models", False),
        ("srv/models/m-1", "/", False),
        ("models:/m-1", "/", False),
    ],
)
def test_files_lie_below_a_store_by_whole_names(address: str, store: str, below: bool) -> None:
    assert (objection((store,), address) is None) == below
    assert (objection(("s3://elsewhere", store), address) is None) == below


@given(NAMES, NAMES, st.sampled_from(["file://", "mlflow-artifacts:", "s3://bucket"]))
def test_an_address_lies_below_what_it_begins_with_and_below_nothing_else(
    names: list[str], more: list[str], start: str
) -> None:
    spell = str if start.startswith("s3") else quote

    def path(parts: list[str]) -> str:
        return f"{start}/{'/'.join(map(spell, parts))}"

    assert objection((path(names),), path(names + more)) is None
    if more:
        assert objection((path(names + more),), path(names))
        assert objection((path([*names, f"{more[0]}x"]),), path(names + more))


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("", "is no address"),
        ("artifacts", "is no address"),
        ("s3:", "is no address"),
        ("S3://bucket", "is no address"),
        ("s3://bucket?x", "is no address"),
        ("/srv/\u202emodels", "is no address"),
        ("models:/chat/1", "names models"),
        ("runs:/1/model", "names models"),
        ("file://host/srv", "names a host"),
        ("//host/srv", "names a host"),
        ("s3://", "names no bucket"),
        ("s3:/models", "names no bucket"),
        ("gs:///models", "names no bucket"),
        ("/srv/../home", "leads elsewhere"),
    ],
)
def test_a_store_that_no_address_could_lie_in_is_a_fault_of_the_policy(store: str, words: str) -> None:
    assert words in str(fault(store))
    with pytest.raises(QuantgovError, match=words):
        naming(store)


def test_a_version_elsewhere_is_refused_with_where_it_lies_and_what_to_do() -> None:
    assert decide(naming("mlflow-artifacts:/"), facts_of(), "@champion").allowed
    for address, words in (
        ("s3://ada/m-1", "Its files lie at s3://ada/m-1"),
        (None, "Nobody knows where its files lie"),
    ):
        decision = decide(naming("mlflow-artifacts:/", "s3://ours"), facts_of(files_at=address), "@champion")
        (refused,) = [check for check in decision.checks if check.refuses]
        assert not decision.allowed and refused.check == "identity" and words in refused.reason
        assert "only from mlflow-artifacts:/, s3://ours" in refused.reason and "artifact location" in refused.fix
    assert decide(load_policy(), facts_of(files_at=None), "@champion").allowed


def test_a_model_of_another_kind_has_to_lie_there_too() -> None:
    policy = naming("mlflow-artifacts:/", other="open")
    other = facts_of(role="other", model=None, lineage=None)
    assert decide(policy, other, "@champion").allowed
    decision = decide(policy, replace(other, files_at="s3://ada/m-1"), "@champion")
    assert not decision.allowed and "Its files lie at s3://ada/m-1" in decision.summary and "Fix:" in decision.summary


def test_a_gate_that_does_not_look_at_them_is_a_fault_of_the_policy() -> None:
    value = yaml.safe_load(load_policy().text)
    value["rules"][0]["stores"] = ["s3://ours"]
    value["gates"]["bytes"] = {"checks": ["bit-width"]}
    value["rules"][0]["destinations"]["Staging"] = "bytes"
    with pytest.raises(
        QuantgovError, match="`identity`, which looks at them, is not among the checks of the gate 'bytes'"
    ):
        parse_policy(yaml.safe_dump(value), source="test")


def test_a_policy_that_names_none_keeps_its_digest() -> None:
    """Approvals and decisions name policies by digest; this one is of before stores could be named."""
    text = "{schema: quantgov/policy/v1, name: of before, gates: {g: {checks: [identity]}}, rules: [{models: '*', destinations: {'@champion': g}}]}"
    plain = parse_policy(text, source="test")
    assert plain.digest == "sha256:67a859813a4aafd17bc15b63c2f599792b909043fb1de9ad5aa8694659cfc1b2"
    assert naming("mlflow-artifacts:/").digest != load_policy().digest
    assert Policy.model_validate(plain.model_dump(by_alias=True)).digest == plain.digest
