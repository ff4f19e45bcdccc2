"""What a spot-check does at the gate: a failed one takes its evaluation away, and a demanded one must be another key's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from releases import MODEL, NOW, PARENT, contents, digest, evidence, facts_of, items, side, task
from spot_checked import CPU, SEED, on_cpu, other, same, spot_check
from test_trust import DAY, by, check, demanding, key, signed

from mlflow_quantgov.errors import PolicyError
from mlflow_quantgov.evidence.predicates import CheckedTask, Shape, SpotCheck, TaskEval
from mlflow_quantgov.evidence.signing import Signer, TrustedKeys, load_signer, make_key
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Draw, Evidence, Facts
from mlflow_quantgov.policy.loader import load_policy
from mlflow_quantgov.policy.schema import Gate, Policy
from mlflow_quantgov.policy.spot_check_faults import fault
from mlflow_quantgov.resources import policies_dir

PLAIN = demanding()
ASKED = demanding('signed: {"*": measurer}', "asked_by: somebody-else", "spot_check: true")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signer]:
    """Everybody who signs in these tests."""
    folder = tmp_path_factory.mktemp("people")
    return {name: load_signer(make_key(name, folder)[0]) for name in ("ada", "bob", "eve")}


def trusting(people: dict[str, Signer], **roles: str) -> TrustedKeys:
    wanted = {"ada": "measurer", "bob": "measurer"} | roles
    return TrustedKeys(keys=tuple(key(people[name], name, role) for name, role in wanted.items()))


def draw(evaluation: Evidence, actor: str = "bob", seed: str = SEED) -> Draw:
    return Draw(evaluation.digest, seed, actor, NOW)


def released(*more: SpotCheck, evaluation: TaskEval | None = None, draws: Any = "bob", **changes: Any) -> Facts:
    """A version that passes by an evaluation on a CPU, with spot-checks."""
    measured = [one for one in contents() if one.KIND != "task-eval"]
    found = [evidence(one) for one in [*measured, evaluation or on_cpu()]]
    drawn = (draw(found[-1], draws),) if isinstance(draws, str) else draws
    found += [evidence(one) for one in more]
    return facts_of(evidence=tuple(found), draws=drawn, **changes)


def refused(decision: Decision) -> list[tuple[str, str]]:
    return [(one.check, one.outcome) for one in decision.checks if one.refuses]


def test_a_spot_check_that_agrees_changes_nothing() -> None:
    assert decide(PLAIN, released(spot_check(on_cpu())), "@champion").allowed


def test_a_failed_one_makes_its_evaluation_count_for_nothing() -> None:
    evaluation = on_cpu()
    failed = spot_check(evaluation, flips=1)
    assert failed.stated()["outcome"] == "fail"
    decision = decide(PLAIN, released(failed), "@champion")
    assert refused(decision) == [("task-eval", "missing")]
    found = check(decision, "task-eval")
    assert "a spot-check of it failed (1 of 20 items are not what was recorded)" in found.reason
    assert evidence(failed).digest in found.evidence and decision.exit_code == 3
    # A later one that agrees gives nothing back; another evaluation, of which none failed, counts.
    again = released(failed, spot_check(evaluation))
    assert not decide(PLAIN, again, "@champion").allowed
    other_one = on_cpu(warnings=("made again",))
    better = replace(again, evidence=(*again.evidence, evidence(other_one)))
    assert decide(PLAIN, better, "@champion").allowed


def test_a_failed_one_takes_an_evaluation_of_a_sibling_too() -> None:
    """Below four bit a wider version's evaluation is read; what was refuted of it is none."""
    from mlflow_quantgov.lineage import ModelFacts
    from mlflow_quantgov.policy.facts import Sibling
    from mlflow_quantgov.policy.spot_checks import labels, set_aside

    evaluation = evidence(on_cpu())
    model: ModelFacts = facts_of().model  # type: ignore[assignment]  # it has one
    failed = evidence(spot_check(on_cpu(), flips=3))
    sibling = Sibling("models:/chat/3", model, (evaluation,), spot_checks=(failed,))
    facts = facts_of(siblings=(sibling,), draws=(draw(evaluation),))
    gate = PLAIN.gates["full"]
    # What was drawn of the other version was answered there.
    assert not [one for one in labels(gate, facts, ()) if one.startswith("drawn")]
    left, gone = set_aside(gate, facts)
    assert left.siblings[0].evidence == () and gone == {evaluation.digest: failed}


def test_an_unsigned_one_takes_nothing_away_where_signatures_are_demanded(people: dict[str, Signer]) -> None:
    """Else anybody could sink any release; it is named."""
    keys = trusting(people)
    facts = released(spot_check(on_cpu(), flips=2))
    found = tuple(
        one if one.kind == "spot-check" else signed(one, keys, by(people["ada"], one)) for one in facts.evidence
    )
    decision = decide(demanding('signed: {"*": measurer}'), replace(facts, evidence=found), "@champion")
    assert decision.allowed and "not counted: spot-check, signed by nobody" in decision.labels
    last = signed(found[-1], keys, by(people["bob"], found[-1]))
    decision = decide(demanding('signed: {"*": measurer}'), replace(facts, evidence=(*found[:-1], last)), "@champion")
    assert refused(decision) == [("task-eval", "missing")]


def sworn(people: dict[str, Signer], evaluation: str, *checks: tuple[SpotCheck, str], **changes: Any) -> Facts:
    """A release whose evaluation, and each of whose spot-checks, somebody has signed, or nobody."""
    keys = trusting(people, **changes)
    facts = released(*(content for content, _ in checks))
    signers = iter(signer for _, signer in checks)
    found = []
    for one in facts.evidence:
        name = evaluation if one.kind == "task-eval" else next(signers) if one.kind == "spot-check" else ""
        found.append(signed(one, keys, by(people[name], one)) if name else replace(one, actor="zoe"))
    return replace(facts, evidence=tuple(found), keys=keys.digest)


SPOT_CHECKED = demanding("spot_check: true")
EVALUATIONS_SIGNED = demanding("signed: {task-eval: measurer}")
WORDS: dict[str, tuple[Policy, str, list[tuple[int, str]], bool]] = {
    # policy; who signed the evaluation; items that differ and who signed, of each spot-check; whether the evaluation counts
    "nobody against nobody": (PLAIN, "", [(1, "")], False),
    "nobody against a measurer": (PLAIN, "ada", [(1, "")], True),
    "an untrusted key against a measurer": (PLAIN, "ada", [(1, "eve")], True),
    "a measurer against a measurer": (PLAIN, "ada", [(1, "bob")], False),
    "a measurer against nobody": (PLAIN, "", [(1, "bob")], False),
    "nobody against a measurer who agrees": (PLAIN, "", [(0, "bob"), (1, "")], True),
    "nobody against nobody who agrees": (PLAIN, "", [(0, ""), (1, "")], False),
    "a measurer against another who agrees": (PLAIN, "ada", [(0, "ada"), (1, "bob")], False),
    "nobody, where only evaluations are signed": (EVALUATIONS_SIGNED, "ada", [(1, "")], True),
    "nobody, where spot-checks are asked for": (SPOT_CHECKED, "", [(0, "bob"), (1, "")], True),
    "a measurer, where spot-checks are asked for": (SPOT_CHECKED, "", [(0, "bob"), (1, "ada")], False),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_a_failed_one_refutes_only_what_nobody_has_a_better_word_for(people: dict[str, Signer], case: str) -> None:
    """Else any stranger sinks any release, for the price of one statement."""
    policy, evaluation, checks, counts = WORDS[case]
    made = [(spot_check(on_cpu(), flips=flips), who) for flips, who in checks]
    facts = sworn(people, evaluation, *made)
    decision = decide(policy, replace(facts, requester="bob"), "@champion")
    assert decision.allowed == counts, decision.one_line()
    who = made[-1][1]
    seen = [label for label in decision.labels if label.startswith(("disputed", "refuted"))]
    assert len(seen) == 1 and seen[0].startswith("disputed" if counts else "refuted")
    found = check(decision, "task-eval")
    if counts:
        assert "signed by nobody, attached by zoe" in seen[0] if not who else "the untrusted key" in seen[0]
    else:
        assert (f", signed by {who}." if who else ", signed by nobody, attached by zoe.") in found.reason
        # A remedy for whoever was sunk by nobody's word.
        helps = "have a measurer run: quantgov spot-check models:/chat/2 --statement sha256:"
        assert (helps in found.fix) == (not who)


def test_a_failed_one_that_nobody_signed_is_said_of_whoever_attached_it() -> None:
    """Where no key is trusted, nobody is told to use one."""
    found = check(decide(PLAIN, released(spot_check(on_cpu(), flips=1)), "@champion"), "task-eval")
    assert "signed by nobody, attached by" in found.reason and "--key" not in found.fix


def altered(content: SpotCheck, **changes: Any) -> SpotCheck:
    """Another one, with a summary that its records give."""
    values = {name: getattr(content, name) for name in SpotCheck.model_fields if name != "summary"}
    return SpotCheck.measured(**(values | changes))


def lie(content: SpotCheck) -> SpotCheck:
    """It says that the evaluation recorded what came out now."""
    item = content.items[0]
    recorded = item.recorded.model_copy(update={"quantized": item.again.quantized})
    return altered(content, items=(item.model_copy(update={"recorded": recorded}), *content.items[1:]))


FAULTS: dict[str, tuple[Any, str]] = {
    "another draw": (lambda e: spot_check(e, seed="6" * 64), "has not drawn its items"),
    "chosen items": (lambda e: altered(spot_check(e), items=spot_check(e, items=30).items[10:30]), "not those that were drawn"),
    "fewer items": (lambda e: altered(spot_check(e), items=spot_check(e).items[:-1]), "not those that were drawn"),
    "another evaluation": (lambda e: spot_check(e, digest("9")), "about another statement"),
    "other records": (lambda e: lie(spot_check(e, flips=1)), "says of an item what the evaluation does not"),
    "other tasks": (lambda e: altered(spot_check(e), tasks=spot_check(e).tasks[::-1]), "names other tasks"),
    "other weights": (
        lambda e: altered(spot_check(e), quantized=side(digest("8"), settings=CPU)), "measured other weights"),
    "more tolerance": (
        lambda e: altered(spot_check(e), quantized_tolerance=spot_check(e).parent_tolerance.model_copy(  # type: ignore[union-attr]
            update={"exact": False, "share": 0.9})), "another tolerance than its runtime's"),
    "an alibi": (lambda e: altered(spot_check(e), asked_alike=False), "its libraries are others"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_spot_check_of_it_says_nothing_and_is_named(case: str) -> None:
    make, words = FAULTS[case]
    evaluation = on_cpu()
    content = make(evaluation)
    facts = released(content, evaluation=evaluation)
    about = next(one for one in facts.evidence if one.kind == "task-eval")
    assert words in str(fault(content, about, facts.draws))
    decision = decide(PLAIN, facts, "@champion")
    assert decision.allowed
    if case != "another evaluation":
        assert any(label.startswith("not counted: spot-check, ") and words in label for label in decision.labels)


@pytest.mark.parametrize("flips", [0, 20])
def test_a_tolerance_in_other_words_or_rounded_otherwise_is_the_same(flips: int) -> None:
    """Statements of an earlier release stay what they are; else an upgrade would give refuted evaluations back."""
    evaluation = on_cpu(
        (task("multi-step-reasoning", [one.model_copy(update={"parent_again": 1.0}) for one in items([(1, 1)] * 50)]),),
        parent=side(PARENT, settings={"device": "cuda:0"}), quantized=side(MODEL, settings={"device": "cuda:0"}),
    )  # fmt: skip
    content = spot_check(evaluation, flips=flips, parent=evaluation.parent, quantized=evaluation.quantized)
    given = content.quantized_tolerance
    assert given is not None and given.share is not None and 0.05 < given.share < 0.06
    told = given.model_copy(update={"why": "said otherwise", "share": given.share * (1 + 1e-12)})
    facts = released(altered(content, quantized_tolerance=told), evaluation=evaluation)
    (about,) = facts.of_kind("task-eval")
    assert fault(facts.evidence[-1].content, about, facts.draws) is None  # type: ignore[arg-type]  # a spot-check


def test_one_that_was_drawn_where_nothing_is_gated_may_refute_and_not_vouch() -> None:
    facts = released(spot_check(on_cpu(), flips=1, drawn_by="checker", seed="7" * 64))
    assert refused(decide(PLAIN, facts, "@champion")) == [("task-eval", "missing")]


# Demanded.


def asked(people: dict[str, Signer], content: SpotCheck | None, signer: str = "bob", **changes: Any) -> Decision:
    """A release that Ada has measured, under a policy that wants a spot-check."""
    keys = changes.pop("keys", None) or trusting(people)
    policy: Policy = changes.pop("policy", ASKED)
    facts = released(*([content] if content else []), requester="bob", **changes)
    found = tuple(
        signed(one, keys, by(people[signer], one)) if one.kind == "spot-check" and signer
        else one if one.kind == "spot-check" else replace(signed(one, keys, by(people["ada"], one)), actor="ada")
        for one in facts.evidence
    )  # fmt: skip
    return decide(policy, replace(facts, evidence=found), "@champion")


def test_another_measurers_spot_check_passes_and_whoever_made_it_may_ask(people: dict[str, Signer]) -> None:
    content = spot_check(on_cpu())
    decision = asked(people, content)
    assert decision.allowed, decision.one_line()
    assert evidence(content).digest in check(decision, "task-eval").evidence
    assert any(label.startswith("signed by bob: spot-check") for label in decision.labels)
    assert {one["name"] for one in decision.signatures} == {"ada", "bob"}
    assert not any(label.startswith("self-reported") for label in decision.labels)


def test_a_signature_of_the_author_beside_the_checkers_takes_nothing_away(people: dict[str, Signer]) -> None:
    keys, facts = trusting(people), released(spot_check(on_cpu()), requester="bob")
    found = [replace(signed(one, keys, by(people["ada"], one)), actor="ada") for one in facts.evidence]
    found[-1] = signed(found[-1], keys, by(people["ada"], found[-1]), by(people["bob"], found[-1]))
    assert decide(ASKED, replace(facts, evidence=tuple(found)), "@champion").allowed


def test_refuted_evaluations_and_draws_without_an_answer_are_seen(people: dict[str, Signer]) -> None:
    """Whoever tries until one is not caught leaves traces."""
    first, second = on_cpu(), on_cpu(warnings=("made again",))
    about = [evidence(one) for one in (first, second)]
    draws = (draw(about[0]), draw(about[1]), draw(about[1], "ada", "8" * 64))
    facts = released(spot_check(first, flips=1), evaluation=first, draws=draws)
    facts = replace(facts, evidence=(*facts.evidence, about[1], evidence(spot_check(second))))
    decision = decide(PLAIN, facts, "@champion")
    assert decision.allowed
    assert f"refuted by a spot-check: task-eval {about[0].digest[:19]}" in decision.labels
    assert "drawn, and nothing attached: ada" in decision.labels


def tried(people: dict[str, Signer], others: int, drawn_for: str = "bob", **changes: Any) -> Decision:
    """Bob vouches for one evaluation; of so many others of the same weights, items were drawn too."""
    keys, first = trusting(people), on_cpu()
    more = [evidence(on_cpu(warnings=(f"forged {number}",))) for number in range(others)]
    draws = (draw(evidence(first)), *(draw(one, drawn_for, f"{number:064x}") for number, one in enumerate(more)))
    facts = released(spot_check(first), evaluation=first, draws=draws, requester="bob")
    found = [signed(one, keys, by(people["bob" if one.kind == "spot-check" else "ada"], one)) for one in facts.evidence]
    vouched = [evidence(spot_check(other_one.content, other_one.digest, seed=f"{number:064x}"))  # type: ignore[arg-type]
               for number, other_one in enumerate(more) if changes.get("answered")]  # fmt: skip
    vouched = [signed(one, keys, by(people[changes["answered"]], one)) for one in vouched]
    facts = replace(facts, evidence=(*more, *(replace(one, actor="ada") for one in found), *vouched))
    return decide(demanding('signed: {"*": measurer}', "spot_check: {risk: 0.01}"), facts, "@champion")


def test_the_luckiest_of_many_draws_does_not_pass_for_the_only_one(people: dict[str, Signer]) -> None:
    """Who asks under Bob's name attaches forgeries, sees what is drawn of each, signs the best and lets Bob check that one."""
    # 20 items of 600 hide a quarter with probability 0.0028: three tries are within one in a hundred.
    assert tried(people, 2).allowed
    decision = tried(people, 4)
    found = check(decision, "task-eval")
    assert refused(decision)[0] == ("task-eval", "missing")
    assert "hidden in one of 5 evaluations of these weights whose items were drawn for its signer" in found.reason
    assert "--items 25 " in found.fix and "drawn, and nothing attached: bob (4 times)" in decision.labels
    assert tried(people, 4, drawn_for="ada").allowed
    # What Bob has vouched for since is no try; what others say of his draws changes nothing.
    assert tried(people, 4, answered="bob").allowed
    assert not tried(people, 4, answered="ada").allowed


SLOW = side(MODEL, settings=CPU | {"threads": 1})
SHORTFALLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "none": (lambda: None, {}, "there is none"),
    "by who measured": (lambda: spot_check(on_cpu()), {"signer": "ada", "draws": "ada"}, "has measured or attached"),
    "unsigned": (lambda: spot_check(on_cpu()), {"signer": ""}, "one is signed by nobody"),
    "drawn for somebody else": (lambda: spot_check(on_cpu()), {"draws": "zoe"}, "drawn for somebody else"),
    "drawn by the checker": (lambda: spot_check(on_cpu(), drawn_by="checker"), {}, "not by this server"),
    "too few items": (lambda: spot_check(on_cpu(), items=10), {}, "looks at 10 items, and the policy wants 20"),
    "too much tolerance": (
        lambda: spot_check(on_cpu(), quantized=SLOW, parent=side("sha256:" + "b" * 64, settings=CPU | {"threads": 1})),
        {}, "more items show more"),
    "inconclusive": (lambda: spot_check(on_cpu(), items=2), {}, "one is inconclusive: 2 items are too few"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHORTFALLS)
def test_what_the_policy_does_not_get_is_missing(people: dict[str, Signer], case: str) -> None:
    make, changes, words = SHORTFALLS[case]
    decision = asked(people, make(), **changes)
    assert ("task-eval", "missing") in refused(decision) and {name for name, _ in refused(decision)} <= {
        "task-eval", "bit-width"}  # fmt: skip
    found = check(decision, "task-eval")
    assert words in found.reason and "by another key" in found.reason
    more = 30 if case == "too much tolerance" else 20
    assert f"quantgov spot-check models:/chat/2 --items {more} --statement sha256:" in found.fix
    assert decision.exit_code == 3


def test_where_so_many_may_differ_that_no_number_helps_it_is_said(people: dict[str, Signer]) -> None:
    """Where each side may differ in 2 %, a forgery of 2 % is never seen, however many items are asked."""
    policy = demanding('signed: {"*": measurer}', "spot_check: {share: 0.02}")
    content = spot_check(on_cpu(), items=60, quantized=SLOW, parent=side(PARENT, settings=CPU | {"threads": 1}))
    found = check(asked(people, content, policy=policy), "task-eval")
    assert found.refuses and "no number of items shows more where so many may differ" in found.reason
    assert "more items show more" not in found.reason


def test_more_items_make_up_for_tolerance(people: dict[str, Signer]) -> None:
    content = spot_check(
        on_cpu(), items=60, quantized=SLOW, parent=side("sha256:" + "b" * 64, settings=CPU | {"threads": 1})
    )
    assert content.stated()["tolerated"] > 0
    assert asked(people, content).allowed


def test_a_role_of_its_own_is_asked_for(people: dict[str, Signer]) -> None:
    policy = demanding("signed: {spot-check: approver}", "spot_check: {items: 20}")
    decision = asked(people, spot_check(on_cpu()), policy=policy)
    assert "whose key has not the role approver but measurer" in check(decision, "task-eval").reason
    assert asked(people, spot_check(on_cpu()), policy=policy, keys=trusting(people, bob="approver")).allowed


def test_it_is_demanded_without_other_signatures_too(people: dict[str, Signer]) -> None:
    policy = demanding("spot_check: true")
    assert asked(people, spot_check(on_cpu()), policy=policy).allowed
    decision = asked(people, spot_check(on_cpu()), policy=policy, keys=trusting(people, bob="approver"))
    assert "has not the role measurer but approver" in check(decision, "task-eval").reason
    assert not asked(people, spot_check(on_cpu()), signer="", policy=policy).allowed


def test_small_evaluations_are_checked_whole(people: dict[str, Signer]) -> None:
    """Twenty items of ten cannot be had; the evaluation is too small for other reasons."""
    few = on_cpu(tuple(task(name, items([(1, 1)] * 4, name)) for name in ("multi-step-reasoning",)))
    content = spot_check(few)
    assert len(content.items) == content.of == 4 and content.stated()["outcome"] == "pass"


@pytest.mark.parametrize(
    ("text", "words"),
    [("spot_check: maybe", "spot_check"), ("spot_check: {items: 0}", "items"), ("spot_check: {risk: 1}", "risk"),
     ("spot_check: {shares: 1}", "shares")],
)  # fmt: skip
def test_a_wrong_demand_is_one_clear_error(text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        demanding(text)


def test_true_is_the_usual_one_and_false_is_none() -> None:
    usual = ASKED.gates["full"].spot_check
    assert usual is not None and (usual.items, usual.share, usual.risk) == (20, 0.25, 0.1)
    assert demanding("spot_check: false").gates["full"].spot_check is None
    assert Gate(checks=()).spot_check is None
    assert load_policy(policies_dir() / "strict.yaml").gates["full"].spot_check == usual


def test_the_records_of_a_statement_survive_its_bytes() -> None:
    from mlflow_quantgov.evidence.statement import parse_statement

    content = spot_check(on_cpu(), flips=2)
    read = parse_statement(Statement.about(MODEL, content, name="m").to_bytes())
    assert read.kind == "spot-check" and read.content() == content


def test_task_files_that_give_another_task_refute_whatever_was_answered() -> None:
    """Multiple choice that was recorded as generating; items that were left out at the end."""
    evaluation = on_cpu()
    for change in ({"output_type": "multiple_choice"}, {"items": 999}, {"few_shot": 3}, {"higher_is_better": False}):
        first, *rest = spot_check(evaluation).tasks
        again = Shape(**(first.recorded.model_dump() | change))
        content = altered(
            spot_check(evaluation), tasks=(CheckedTask(task=first.task, recorded=first.recorded, again=again), *rest)
        )
        assert content.stated()["outcome"] == "fail" and "another task" in content.stated()["reason"]
        assert refused(decide(PLAIN, released(content), "@champion")) == [("task-eval", "missing")]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "agrees"),
        ({"id": "x"}, "differs"),
        ({"group": "g"}, "differs"),
        ({"choices": 4}, "differs"),
        ({"prompt_sha256": "0" * 64}, "differs"),
    ],
)
def test_what_stands_at_the_items_place_is_compared_whatever_the_runtime(change: dict[str, Any], verdict: str) -> None:
    from mlflow_quantgov.evidence.predicates.spot_check_summary import judge

    content = spot_check(on_cpu(), quantized=SLOW)
    item = content.items[0].model_copy(update={"again": same(content.items[0].recorded, **change)})
    assert judge(item, content)[0] == verdict
    flipped = item.model_copy(update={"again": same(item.recorded, quantized=other(item.recorded.quantized))})
    assert judge(flipped, content)[0] == "may-differ"
    strange = content.model_copy(update={"asked_alike": False})
    if "prompt_sha256" in change:
        assert judge(item, strange)[0] == "unclear"


def test_what_could_not_be_compared_is_not_counted_as_looked_at() -> None:
    """Graded scores that all moved a little: a forgery of all of them would look the same."""
    half = [(0.5, 0.5)] * 200
    evaluation = on_cpu((task("graded", items(half)),))
    content = spot_check(evaluation, quantized=SLOW)
    assert content.stated()["outcome"] == "pass" and content.stated()["hidden"]["50%"] < 1e-6
    for count, hidden in ((20, 1.0), (10, 0.5880985)):
        moved = tuple(
            one.model_copy(update={"again": same(one.recorded, quantized=one.recorded.quantized.model_copy(
                update={"score": 0.51}))}) if number < count else one
            for number, one in enumerate(content.items)
        )  # fmt: skip
        stated = altered(content, items=moved).stated()
        assert (stated["outcome"], stated["unclear"], stated["items"]) == ("inconclusive", count, 20)
        assert stated["hidden"]["50%"] == pytest.approx(hidden, abs=0.01)
        assert stated["tasks"]["task-graded"]["hidden"]["50%"] == stated["hidden"]["50%"]


def test_a_key_that_is_revoked_vouches_for_no_spot_check(people: dict[str, Signer]) -> None:
    keys = TrustedKeys(
        keys=(
            key(people["ada"], "ada", "measurer"),
            key(people["bob"], "bob", "measurer", revoked_at=NOW - DAY, reason="lost"),
        )
    )
    assert not asked(people, spot_check(on_cpu()), keys=keys).allowed


def test_measuring_all_does_not_evaluate_again_what_only_lacks_its_spot_check(people: dict[str, Signer]) -> None:
    from mlflow_quantgov.api import Given
    from mlflow_quantgov.api.measuring_all import planned

    decision = asked(people, None)
    (step,) = [one for one in planned(decision, Given(tasks="tasks"), "models:/chat/2") if one.check == "task-eval"]
    assert (step.kind, step.state) == ("spot-check", "lacking") and "quantgov spot-check models:/chat/2" in step.fix
    anew = planned(decision, Given(tasks="tasks"), "models:/chat/2", again=True)
    assert [one.kind for one in anew if one.check == "task-eval"] == ["task-eval"]


def test_a_server_says_at_once_that_nobody_can_make_one(people: dict[str, Signer]) -> None:
    from mlflow_quantgov.gate.clients.answers import keys_status

    policy = demanding("spot_check: true")
    assert keys_status(policy, TrustedKeys())["lacking"] == ["measurer"]
    assert keys_status(policy, trusting(people))["lacking"] == []


def test_a_plan_names_it_only_where_it_is_asked_for() -> None:
    from mlflow_quantgov.policy.release_steps import Release, steps

    release = Release("chat", "models:/chat/1", "made.gguf", "cpu-llamacpp", False, False, False, False, "@champion", 4)
    commands = [command for step in steps(ASKED.gates["full"], release) for command in step.commands]
    (mine,) = [command for command in commands if "spot-check" in command]
    assert mine.startswith("quantgov spot-check models:/chat/2 --items 20 --tasks tasks/")
    assert all(len(line) <= 78 for line in mine.splitlines())
    assert "spot-check" not in str(steps(PLAIN.gates["full"], release))


def test_the_report_says_what_it_found_and_what_may_have_stayed_hidden() -> None:
    from mlflow_quantgov.pages.report import render_report

    facts = released(spot_check(on_cpu()), spot_check(on_cpu(), flips=1))
    page = render_report(facts, decide(PLAIN, facts, "@champion"), title="chat")
    assert "all 20 items agree (20 of 600). A forgery of 5%, 10%, 25%, 50% of all items" in page
    assert "with probability 0.35, 0.12, 0.0028, " in page
    assert '<p class="fail">Spot-check of sha256:' in page and "1 of 20 items are not what was recorded" in page
