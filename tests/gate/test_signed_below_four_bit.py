"""Below four bit where the policy wants signatures: each statement that the width rests on, signed by nobody or by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from narrow_releases import Registry, narrow, original, refused, release, trusted, wide, written

from mlflow_quantgov.evidence.signing import Attached, TrustedKeys
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.gate.facts.gathering import Gatherer
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide

pytestmark = pytest.mark.slow  # whole checkpoints are written and compared for each test

SIGNED = '{"*": measurer}'
WORDS = {
    "": "signed by nobody",
    "eve": "signed by the untrusted key",
    "bob": "signed by bob, whose key has not the role measurer but approver",
}
SIGNERS = ["", "eve", "bob"]
Open = Callable[..., Registry]


def decided(found: Registry, version: str = "2") -> Decision:
    decision = found.store.quantgov_check("chat", version, "@champion")
    assert isinstance(decision, Decision)
    return decision


def in_halves() -> Any:
    """Another checkpoint, of which these weights are no rounding."""
    return {name: one * 0.5 for name, one in original().items()}


def lineage(found: Registry) -> CheckResult:
    return next(one for one in decided(found).checks if one.check == "lineage")


def by(found: Registry, signer: str, deed: Callable[[], Any]) -> Any:
    """Let somebody else sign for once."""
    before, found.signer = found.signer, signer
    try:
        return deed()
    finally:
        found.signer = before


@pytest.mark.parametrize("level", ["structure", "numeric"])
def test_what_a_trusted_measurer_signed_lets_through(registry: Open, level: str) -> None:
    found = registry(level, signed=SIGNED)
    found.signer = "ada"
    version = release(found)
    decision = decided(found)
    assert decision.allowed, decision.one_line()
    assert "signed by ada: task-eval, training" in decision.labels
    # The wider version's evaluation is among what the decision rests on.
    assert {one["kind"] for one in decision.signatures} == {"task-eval", "training"} and len(decision.signatures) == 3
    found.promote(version)


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_training_statement_that_nobody_with_the_role_signed(registry: Open, signer: str) -> None:
    found = registry("numeric", signed=SIGNED)
    found.signer = "ada"
    wide(found)
    version = narrow(found)
    by(found, signer, lambda: found.train(version))
    found.evaluate(version)
    check = refused(found, "none is recorded for these weights", "missing")
    assert f"the training statement is {WORDS[signer]}" in check.reason and "with the role measurer" in check.reason
    assert check.fix.startswith(f"quantgov training models:/chat/{version}") and check.fix.endswith(
        "--key NAME.key.pem"
    )
    # The level `numeric` went through that statement's checkpoint: without it the weights are not the original's rounding.
    link = lineage(found)
    assert link.outcome == "fail" and "Proved up to structure, numeric is demanded" in link.reason
    assert f"the training statement is {WORDS[signer]}" in link.reason
    assert f"not counted: training, {WORDS[signer]}" in " ".join(decided(found).labels)
    with pytest.raises(MlflowException, match="quantgov refused"):
        found.promote(version)
    by(found, "ada", lambda: found.send(version, found.sent[-2].statement))
    assert decided(found).allowed
    found.promote(version)


@pytest.mark.parametrize("signer", SIGNERS)
def test_an_evaluation_of_the_wider_version_that_nobody_with_the_role_signed(registry: Open, signer: str) -> None:
    found = registry(signed=SIGNED)
    found.signer = "ada"
    by(found, signer, lambda: wide(found))
    wider = found.sent[-1].statement
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    check = refused(
        found, "No version of the same parent at 4 bit or more was evaluated whole: models:/chat/1", "missing"
    )
    assert f"the task-eval statement is {WORDS[signer]}" in check.reason and "with the role measurer" in check.reason
    assert check.fix.split("; ") == [
        f"quantgov evaluate models:/chat/{one} --tasks tasks/ --key NAME.key.pem" for one in ("1", version)
    ]
    labels = " ".join(decided(found).labels)
    assert f"not counted: task-eval of models:/chat/1, {WORDS[signer]}" in labels
    with pytest.raises(MlflowException, match="does not count"):
        found.promote(version)
    # It was received before; whoever signs it now vouches for that very statement.
    by(found, "ada", lambda: found.send("1", wider))
    assert found.check().outcome == "pass"
    found.promote(version)


def test_of_the_wider_version_only_what_is_signed_counts(registry: Open) -> None:
    """A signed look at too few items, and all of them unsigned."""
    found = registry(signed=SIGNED)
    found.signer = "ada"
    by(found, "", lambda: wide(found))
    found.evaluate("1", asked=20)
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    check = refused(
        found, "models:/chat/1 was evaluated without edge-cases, and what there is does not count", "missing"
    )
    assert "signed by nobody" in check.reason


def test_its_own_evaluation_has_to_be_signed_too(registry: Open) -> None:
    found = registry(signed="{task-eval: measurer}")
    found.signer = "ada"
    wide(found)
    version = narrow(found)
    by(found, "", lambda: found.train(version))
    by(found, "", lambda: found.evaluate(version))
    check = refused(found, "no task evaluation against the original", "missing")
    assert "the task-eval statement is signed by nobody" in check.reason and "training" not in check.reason
    assert check.fix == f"quantgov evaluate models:/chat/{version} --tasks tasks/ --key NAME.key.pem"
    found.evaluate(version)
    assert decided(found).allowed


@pytest.mark.parametrize("role", ["measurer", "approver"])
def test_an_unsigned_statement_that_came_later_hides_nothing(registry: Open, role: str) -> None:
    """Whoever is believed: the checkpoint of each statement that may count is compared."""
    found = registry("numeric", signed=f"{{training: {role}}}")
    found.register("trained", written(found.folder / "other", in_halves()))
    wide(found)
    version = narrow(found)
    by(found, "ada" if role == "measurer" else "bob", lambda: found.train(version))
    if role == "approver":
        by(found, "ada", lambda: found.train(version, "models:/trained/2"))
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    decision = decided(found)
    assert decision.allowed, decision.one_line()
    assert "through the trained checkpoint models:/trained/1" in lineage(found).reason


def test_a_revoked_key_takes_the_wider_version_back(registry: Open) -> None:
    found = registry(signed=SIGNED)
    found.signer = "ada"
    version = release(found)
    assert decided(found).allowed
    gone = trusted(found.people, "ada", "measurer", revoked_at=found.clock - timedelta(days=1), reason="lost")
    gatherer = Gatherer(
        found.store, found.store.engine, found.store._sessions.transaction, keys=TrustedKeys(keys=(gone,)),
        least_bits=lambda _: 4.0,
    )  # fmt: skip
    decision = decide(found.store.quantgov_policy(), gatherer.gather("chat", version), "@champion")
    check = next(one for one in decision.checks if one.check == "bit-width")
    assert check.outcome == "missing" and check.reason.count("whose key is revoked") == 3


@pytest.mark.parametrize("signer", ["ada", ""])
def test_where_nothing_is_gated_the_signatures_of_the_copies_count(registry: Open, signer: str) -> None:
    found = registry(signed=SIGNED)
    found.signer = "ada"
    by(found, signer, lambda: wide(found))
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    for attached, folder in zip(found.sent, ("w4", "w3", "w3"), strict=True):
        place = found.folder / f"logged-chat-{folder}" / EVIDENCE_FOLDER
        place.mkdir(exist_ok=True)
        for one in (attached, Attached(attached.statement)):
            (place / copy_name(one)).write_bytes(one.to_bytes())
    gatherer = Gatherer(
        found.store, found.store.engine, None, keys=found.store.quantgov_keys(), least_bits=lambda _: 4.0
    )
    decision = decide(found.store.quantgov_policy(), gatherer.gather("chat", version), "@champion")
    assert decision.allowed is (signer == "ada"), decision.one_line()
    if not signer:
        assert "the task-eval statement is signed by nobody" in decision.one_line()
