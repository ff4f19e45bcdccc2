"""What counts under a gate that wants signatures, why the rest does not, and whether who asks is who measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mlflow_quantgov.evidence.predicates import PERMISSIONS, SpotCheck, Training
from mlflow_quantgov.evidence.signing import Role, Signature
from mlflow_quantgov.policy.checks.interface import result
from mlflow_quantgov.policy.decision import CheckResult
from mlflow_quantgov.policy.facts import Evidence, Facts, Sibling, relinked
from mlflow_quantgov.policy.names import fold
from mlflow_quantgov.policy.schema import Gate

ANONYMOUS = "anonymous"
"""Who asks without a name."""
_MEASURING = {
    "evaluate": "task-eval", "fidelity": "fidelity", "calibration": "calibration", "kernels": "kernels",
    "benchmark": "benchmark", "archive": "archive", "drill": "drill", "reproduce": "reproduction", "training": "training",
    "spot-check": "spot-check",
}  # fmt: skip
"""Command to the kind of what it attaches."""
_STANDING = {
    "bad": "signed with a signature that does not fit it",
    "not-yet-valid": "signed by {who}, and received before that key was valid",
    "expired": "signed by {who}, whose key had expired when it was received",
    "revoked": "signed by {who}, whose key is revoked",
    "untrusted": "signed by {who}",
}


def set_aside(gate: Gate, facts: Facts) -> tuple[Facts, tuple[Evidence, ...]]:
    """Facts with only the evidence that counts under a gate, and the rest.

    Without a demand everything counts, in the order of `Evidence.rank`; then nothing is set aside. Evaluations of other
    versions that a check reads (`Facts.siblings`) have to be signed like this one's, and stay with their version.
    """
    aside = tuple(one for one in facts.evidence if _lacks_signature(gate, one))
    facts = replace(facts, siblings=tuple(_counted(gate, one) for one in facts.siblings))
    if not aside:
        return facts, ()
    gone = {one.digest for one in aside}
    return relinked(replace(facts, evidence=tuple(one for one in facts.evidence if one.digest not in gone))), aside


def explain(
    found: CheckResult, kinds: Sequence[str], gate: Gate, facts: Facts, aside: Sequence[Evidence]
) -> CheckResult:
    """A result that misses something, with what there is and does not count, and with a remedy that signs.

    A training statement is named whatever else is wrong: the first thing to do is then to have it signed.
    """
    if not found.refuses:
        return found
    kinds = [kind for kind in kinds if found.outcome == "missing" or kind == Training.KIND]
    subjects = {one.weights for one in (facts.model, facts.lineage.parent if facts.lineage else None) if one}
    newest = {one.kind: one for one in sorted(aside, key=lambda one: one.rank) if one.subject in subjects}
    there = [newest[kind] for kind in kinds if kind in newest]
    said = f" What there is does not count: {uncounted(gate, there)}." if there else ""
    return replace(found, reason=f"{found.reason}{said}", fix=signing(gate, found.fix))


def uncounted(gate: Gate, aside: Sequence[Evidence]) -> str:
    """Why some statements do not count, and whose signature each needs."""
    there = [f"the {one.kind} statement is {why_not(one, wanted_role(gate, one.kind))}" for one in aside]
    roles = sorted({role for one in aside if (role := wanted_role(gate, one.kind))})
    return f"{'; '.join(there)}. The policy wants it signed by a key with the role {' or '.join(roles)}"


def why_not(one: Evidence, role: Role | None) -> str:
    """Why nobody with a role vouches for a statement, in words that follow "is"."""
    if not one.signatures:
        return "signed by nobody"
    best = next((signature for signature in one.signatures if signature.is_valid), one.signatures[-1])
    if best.is_valid:
        return f"signed by {best.words()}, whose key has not the role {role} but {' and '.join(best.roles)}"
    return _STANDING[best.standing].format(who=best.words())


def wanted_role(gate: Gate, kind: str) -> Role | None:
    """The role whose signature a kind of evidence needs under a gate; None where it needs none."""
    return None if kind in PERMISSIONS else gate.signed.get(kind, gate.signed.get("*"))


def separation(gate: Gate, facts: Facts, checks: Sequence[CheckResult], uri: str) -> tuple[CheckResult, ...]:
    """The checks, with `approvals` missing where the policy wants somebody else to ask than who measured.

    Going back to the full-precision parent is open to everybody: whoever is on call has perhaps run the drill. Whoever has
    measured some of somebody else's items again is the second person, and may ask.
    """
    if gate.asked_by == "anybody" or facts.role == "parent":
        return tuple(checks)
    measured = (one for one in used(facts, checks) if one.kind not in {SpotCheck.KIND, *PERMISSIONS})
    own = sorted({one.kind for one in measured if may_be_author(one, facts.requester)})
    if not own:
        return tuple(checks)
    who, fix = facts.requester, f"have somebody else ask: quantgov promote {uri} --to DESTINATION"
    reason = f"{who} asks for it, and has also measured or attached {', '.join(own)}; the policy wants two people."
    if who in {None, ANONYMOUS}:
        reason = "Nobody knows who asks, and the policy wants somebody else to ask than who has measured."
        fix = "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=..."
    missing = result("approvals", "missing", reason, fix)
    return (*(one for one in checks if one.check != missing.check or one.refuses), missing)


def may_be_author(one: Evidence, requester: str | None) -> bool:
    """Whether who asks may be who measured: by the signer's name, by who attached it; unknown counts as the same."""
    signers = [signature.name for signature in one.signatures if signature.is_valid]
    if requester in {None, ANONYMOUS} or (not signers and one.actor in {None, ANONYMOUS}):
        return True
    return fold(str(requester)) in {fold(name) for name in (*signers, one.actor) if name is not None}


def used(facts: Facts, checks: Iterable[CheckResult]) -> list[Evidence]:
    """Evidence that some checks rest on, also where it is about another version."""
    digests = {digest for check in checks for digest in check.evidence}
    others = (one for sibling in facts.siblings for one in (*sibling.evidence, *sibling.spot_checks))
    return [one for one in (*facts.evidence, *others) if one.digest in digests]


def labels(facts: Facts, checks: Sequence[CheckResult], aside: Sequence[Evidence], gate: Gate) -> list[str]:
    """Who vouches for what a decision rests on, and what was received and does not count."""
    mine = [one for one in used(facts, checks) if one.kind not in PERMISSIONS]
    # A spot-check is of somebody else's work: whoever signed one does not report of themselves by asking too.
    own = {
        one.kind
        for one in mine
        if not _valid(one) or (one.kind != SpotCheck.KIND and may_be_author(one, facts.requester))
    }
    vouched: dict[str, set[str]] = {}
    for one in mine:
        for signature in _valid(one):
            vouched.setdefault(signature.name, set()).add(one.kind)
    untrusted = {one.kind for one in mine if one.signatures and not _valid(one)}
    found = [f"self-reported: {', '.join(sorted(own))}"] if own else []
    found += [f"signed by {name}: {', '.join(sorted(kinds))}" for name, kinds in sorted(vouched.items())]
    found += [f"signed by an untrusted key: {', '.join(sorted(untrusted))}"] if untrusted else []
    ignored = [f"{one.kind}, {why_not(one, wanted_role(gate, one.kind))}" for one in aside]
    ignored += [
        f"{one.kind} of {sibling.uri}, {why_not(one, wanted_role(gate, one.kind))}"
        for sibling in facts.siblings
        for one in sibling.aside
    ]
    ignored += [f"{one.kind}, received later and vouched for by nobody" for one in _outranked(facts, mine)]
    return found + [f"not counted: {words}" for words in dict.fromkeys(ignored)]


def _outranked(facts: Facts, mine: Sequence[Evidence]) -> list[Evidence]:
    """Statements that would have replaced one that a decision rests on, had a measurer not signed that one."""
    digests = {one.digest for one in mine}
    return [
        one
        for one in facts.evidence
        if one.digest not in digests
        and one.signed_by("measurer") is None
        and any(
            (other.kind, other.subject) == (one.kind, one.subject)
            and other.signed_by("measurer")
            and one.received_at is not None
            and other.received_at is not None
            and one.received_at > other.received_at
            for other in mine
        )
    ]


def _lacks_signature(gate: Gate, one: Evidence) -> bool:
    role = wanted_role(gate, one.kind)
    return role is not None and one.signed_by(role) is None


def _counted(gate: Gate, sibling: Sibling) -> Sibling:
    """Another version with only those of its evaluations that count, and the rest beside them."""
    aside = tuple(one for one in sibling.evidence if _lacks_signature(gate, one))
    gone = {one.digest for one in aside}
    heard = tuple(one for one in sibling.spot_checks if not _lacks_signature(gate, one))
    return replace(
        sibling,
        evidence=tuple(one for one in sibling.evidence if one.digest not in gone),
        aside=aside,
        spot_checks=heard,
    )


def _valid(one: Evidence) -> list[Signature]:
    return [signature for signature in one.signatures if signature.is_valid]


def signing(gate: Gate, fix: str) -> str:
    """A remedy whose commands sign what the gate wants signed; its parts are separated by semicolons."""
    parts = [part.strip() for part in fix.split(";")]
    return "; ".join(f"{part} --key NAME.key.pem" if _must_sign(gate, part.split()) else part for part in parts)


def _must_sign(gate: Gate, words: Sequence[str]) -> bool:
    kind = _MEASURING.get(words[1]) if len(words) > 1 and words[0] == "quantgov" else None
    return kind is not None and wanted_role(gate, kind) is not None and "--key" not in words
