"""Below four bit: a release for which everything was shown, and each condition of it missing or violated."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from releases import (
    CAPABILITIES,
    MODEL,
    NOW,
    PARENT,
    contents,
    digest,
    evidence,
    facts_of,
    items,
    model_facts,
    provenance,
    side,
    task,
    task_eval,
)

from mlflow_quantgov.artifact.derivation import Descent, Kinship
from mlflow_quantgov.artifact.derivation.descent import LayerDescent, Verdict
from mlflow_quantgov.artifact.derivation.kinship import MatrixKinship
from mlflow_quantgov.artifact.quantization import LayerQuantization
from mlflow_quantgov.checkpoint import Checkpoint, with_checkpoint
from mlflow_quantgov.evidence.predicates import Answer, TaskEval, Training
from mlflow_quantgov.evidence.predicates.training import TrainingV1
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy.decision import AuditAnswer, CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Evidence, Facts, Sibling
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import Gate, Policy

TRAINED, WIDER = digest("d"), digest("8")
CHECKPOINT = "models:/chat-trained/1"
FOUR_HOURS = 240


def training(**changes: Any) -> Training:
    values: dict[str, Any] = {
        "provenance": provenance(), "run": "r1", "checkpoint": TRAINED, "checkpoint_uri": CHECKPOINT, "steps": 1000,
        "data_digest": digest("5"), "code_version": "1",
    }  # fmt: skip
    return Training.measured(**(values | changes))


def layer(verdict: Verdict, name: str = "l0", outside: float = 0.0, **changes: Any) -> LayerDescent:
    """One matrix of 10,000 weights at 2 bit."""
    values: dict[str, Any] = {
        "kind": "gptq", "bits": 2.0, "group_size": 32, "weights": 10_000, "relative_error": 0.3, "reachable_error": 0.3,
        "sqnr_db": 10.0, "outside": outside, "by_chance": 0.5, "resolution": 0.02 if verdict == "proved" else None,
        "trace": "rounded" if verdict == "proved" else "none", "problem": None if verdict == "proved" else f"It is {verdict}.",
    }  # fmt: skip
    return LayerDescent(name, **(values | changes))


def descent(verdict: Verdict, *layers: LayerDescent) -> Descent:
    found = layers or (layer(verdict), layer(verdict, "l1"))
    return Descent(verdict, f"It is {verdict}.", found, "as stored", None)


def kin(correlation: float = 0.95, distance: float = 0.1, problem: str | None = None) -> Kinship:
    return Kinship((MatrixKinship("q_proj.weight", 4096, correlation, distance),), distance, problem)


def full_precision(weights: str = TRAINED, **changes: Any) -> ModelFacts:
    return replace(model_facts(PARENT, **changes), weights=weights, manifest=weights)


def checkpoint(**changes: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "uri": CHECKPOINT, "claimed": TRAINED, "original": PARENT, "model": full_precision(), "kinship": kin(),
        "descent": descent("proved"), "descent_of_original": descent("refuted"), "least_bits": 4.0,
    }  # fmt: skip
    return Checkpoint(**(values | changes))


def narrow(*bits: float) -> ModelFacts:
    layers = tuple(LayerQuantization(f"l{number}", one, 32, (10, 10)) for number, one in enumerate(bits))
    return model_facts(MODEL, bits=bits[0], layers=layers)


def wider_eval(lost: int = 0, **changes: Any) -> TaskEval:
    """The four-bit version against the same parent, three hours before the narrow one."""
    answered = items([(1, 1)] * (180 - lost) + [(1, 0)] * lost + [(0, 0)] * 20)
    values: dict[str, Any] = {
        "provenance": provenance(measured_at=NOW - timedelta(hours=5)),
        "quantized": side(WIDER, behaviour=digest("e")),
        "tasks": tuple(task(name, answered) for name in CAPABILITIES),
    }
    return task_eval(**(values | changes))


def sibling(content: TaskEval | None = None, minutes: int = FOUR_HOURS, bits: float = 4.0) -> Sibling:
    model = replace(narrow(bits), weights=WIDER)
    return Sibling("models:/chat/3", model, (evidence(content or wider_eval(), minutes, WIDER),))


def release(measured: list[Any] | None = None, **changes: Any) -> Facts:
    """A two-bit version for which everything was shown."""
    facts = facts_of([*contents(), training()] if measured is None else measured, model=narrow(2, 2))
    return replace(facts, **({"checkpoint": checkpoint(), "siblings": (sibling(),)} | changes))


def decision_of(facts: Facts, policy: Policy | None = None) -> tuple[Decision, CheckResult, AuditAnswer]:
    decision = decide(policy or load_policy(), facts, "@champion")
    (check,) = [one for one in decision.checks if one.check == "bit-width"]
    return decision, check, decision.self_audit[2]


def test_a_release_for_which_everything_was_shown_passes_and_says_what_it_rests_on() -> None:
    facts = release()
    decision, check, answer = decision_of(facts)
    assert decision.allowed and answer.answer == "yes"
    for words in ("2 bit, below 4", "models:/chat/3 at 4 bit was evaluated first", "trained from the original for 1,000",
                  "moved its weights by 10.0%", "within the budget of 2.0% for 2 bit"):  # fmt: skip
        assert words in check.reason
    known = {one.digest for one in (*facts.evidence, *facts.siblings[0].evidence)}
    assert len(check.evidence) == 3 and set(check.evidence) <= known
    assert check.numbers["budget"]["edge-cases"]["margin"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("change", "outcome", "words", "fix"),
    [
        # The trained checkpoint, from its own files.
        ({"checkpoint": checkpoint(model=None)}, "missing", "is no registered version", "quantgov log-parent"),
        ({"checkpoint": checkpoint(model=full_precision(digest("9")))}, "fail", "other weights than", "quantgov training"),
        ({"checkpoint": checkpoint(model=full_precision(PARENT), claimed=PARENT)}, "missing", "was not compared", "check"),
        ({"checkpoint": checkpoint(model=narrow_model) if (narrow_model := replace(narrow(4), weights=TRAINED)) else {}},
         "fail", "is itself quantized", "latent"),
        ({"checkpoint": checkpoint(model=full_precision(warnings=("on-k-bit-grid",)))}, "fail", "k-bit grid", "latent"),
        ({"checkpoint": checkpoint(structure=("The hidden size is 8, the parent's is 9.",))}, "fail", "hidden size", "train"),
        ({"checkpoint": checkpoint(kinship=None)}, "fail", "Nobody compared them", "train"),
        ({"checkpoint": checkpoint(kinship=kin(problem="l is missing"))}, "fail", "l is missing", "train"),
        ({"checkpoint": checkpoint(kinship=kin(0.01))}, "fail", "correlates with the original's by 0.01", "train"),
        ({"checkpoint": checkpoint(kinship=kin(1.0, 0.0))}, "fail", "the original's very numbers", "train"),
        ({"checkpoint": checkpoint(descent=None)}, "fail", "Nobody compared them", "quantize the checkpoint again"),
        ({"checkpoint": checkpoint(descent=descent("refuted"))}, "fail", "are not the rounding of", "quantgov training"),
        ({"checkpoint": checkpoint(descent=descent("unproved"))}, "fail", "are not shown to be the rounding", "quantize"),
        ({"checkpoint": checkpoint(descent_of_original=descent("proved"))}, "fail", "left no trace", "train every matrix"),
        ({"checkpoint": checkpoint(descent_of_original=None)}, "fail", "cannot be told", "train every matrix"),
        ({"checkpoint": checkpoint(descent_of_original=replace(descent("unproved"), layers=()))}, "fail", "cannot be told", ""),
        # One narrow matrix was trained, and another one was not.
        ({"checkpoint": checkpoint(descent_of_original=descent("refuted", layer("refuted"), layer("proved", "l1")))},
         "fail", "1 of 2 matrices below 4 bit are the original's own, rounded, as far as their codes tell (l1", "train"),
        ({"checkpoint": checkpoint(descent_of_original=descent("refuted", layer("refuted"), layer("proved", "l1", 1e-3)))},
         "fail", "1 of 2 matrices below 4 bit", "train"),
        ({"checkpoint": checkpoint(uri="models:/other/1")}, "missing", "was not compared", "quantgov check"),
        ({"checkpoint": None}, "missing", "was not compared", "quantgov check"),
        # A wider version of the same parent, evaluated first.
        ({"siblings": ()}, "missing", "No version of the same parent at 4 bit or more was evaluated first", "quantgov log"),
        ({"siblings": (sibling(bits=3.0),)}, "missing", "No version of the same parent at 4 bit or more", "quantgov log"),
        ({"siblings": (sibling(minutes=0),)}, "missing", "evaluated only after this version", "quantgov evaluate models:/chat/2"),
        ({"siblings": (sibling(wider_eval(provenance=provenance())),)}, "missing", "only after this version", "evaluate"),
        ({"siblings": (sibling(wider_eval(parent=side(digest("9")))),)}, "missing", "without the capabilities", "evaluate"),
        ({"siblings": (sibling(wider_eval(quantized=side(WIDER, dequantized=True, behaviour=digest("e")))),)},
         "missing", "without the capabilities", "quantgov evaluate models:/chat/3"),
        ({"siblings": (sibling(wider_eval(tasks=(task(CAPABILITIES[0]), task(CAPABILITIES[1])))),)},
         "missing", "without edge-cases", "quantgov evaluate models:/chat/3"),
        ({"siblings": (sibling(wider_eval(tasks=tuple(task(one, items([(1, 1)] * 20)) for one in CAPABILITIES))),)},
         "missing", "without multi-step-reasoning", "quantgov evaluate models:/chat/3"),
    ],
)  # fmt: skip
def test_each_condition_refuses_by_itself(change: dict[str, Any], outcome: str, words: str, fix: str) -> None:
    decision, check, answer = decision_of(release(**change))
    assert [one.check for one in decision.checks if one.refuses] == ["bit-width"]
    assert (check.outcome, answer.answer) == (outcome, "no")
    assert words in check.reason and words in answer.why
    assert fix in check.fix
    assert answer.why.startswith("Not measured:") == (outcome == "missing")


def test_codes_that_turned_show_training_where_the_original_alone_would_pass() -> None:
    """Two in a thousand weights of the original outside are no proof against it; none of the checkpoint's are outside."""
    seen = descent("refuted", layer("refuted"), layer("proved", "l1", 3e-3))
    assert decision_of(release(checkpoint=checkpoint(descent_of_original=seen)))[0].allowed
    assert decision_of(
        release(checkpoint=checkpoint(descent_of_original=descent("proved", layer("proved", "l0", 3e-3))))
    )[0].allowed


def test_matrices_at_four_bit_need_no_training() -> None:
    seen = descent("refuted", layer("refuted"), layer("proved", "l1", bits=4.0), layer("proved", "norm", bits=None))
    assert decision_of(release(checkpoint=checkpoint(descent_of_original=seen)))[0].allowed


def test_the_original_under_another_name_is_no_checkpoint() -> None:
    named = checkpoint(model=full_precision(PARENT), claimed=PARENT)
    _, check, _ = decision_of(release([*contents(), training(checkpoint=PARENT)], checkpoint=named))
    assert check.outcome == "fail" and "is the original itself" in check.reason


def test_without_a_training_statement_the_command_is_given() -> None:
    _, check, _ = decision_of(release(contents(), checkpoint=None))
    assert (check.outcome, check.fix.split(" --")[0]) == ("missing", "quantgov training models:/chat/2")
    assert "none is recorded for these weights" in check.reason


def test_a_statement_of_the_first_version_says_too_little() -> None:
    old = TrainingV1.measured(**training().model_dump(exclude={"summary", "checkpoint_uri"}))
    _, check, _ = decision_of(release([*contents(), old]))
    assert check.outcome == "missing" and "where its checkpoint is registered is not stated" in check.reason


def test_training_of_other_weights_is_no_training_of_these() -> None:
    facts = release(contents())
    other = evidence(training(), subject=digest("9"))
    _, check, _ = decision_of(replace(facts, evidence=(*facts.evidence, other)))
    assert check.outcome == "missing" and "none is recorded" in check.reason


def test_whatever_is_unmet_is_said_and_the_first_on_the_way_is_mended_first() -> None:
    _, check, _ = decision_of(release([], checkpoint=None, siblings=()))
    order = [
        check.reason.index(words) for words in ("evaluated first", "needs quantization-aware training", "not measured")
    ]
    assert order == sorted(order) and check.fix.startswith("quantize the parent at 4 bit; quantgov log PATH --parent")


def test_before_its_own_evaluation_the_order_is_kept_anyway() -> None:
    without = [one for one in contents() if not isinstance(one, TaskEval)]
    _, check, _ = decision_of(release([*without, training()]))
    assert check.outcome == "missing" and "evaluated only after" not in check.reason
    assert check.reason.endswith("not measured: no task evaluation against the original.")


def test_a_task_that_gates_nothing_may_have_been_asked_before() -> None:
    facts = release()
    early = evidence(task_eval((task("chit-chat"),)), minutes=600)
    assert decision_of(replace(facts, evidence=(early, *facts.evidence)))[0].allowed


def test_what_came_out_of_the_wider_version_is_said_and_may_be_bad() -> None:
    _, check, _ = decision_of(release(siblings=(sibling(wider_eval(lost=60)),)))
    assert check.outcome == "pass" and "edge-cases fail" in check.reason
    assert check.numbers["first"]["edge-cases"]["outcome"] == "fail"


def with_gate(**changes: Any) -> Policy:
    policy = load_policy()
    gate = Gate.model_validate(policy.gates["full"].model_dump() | changes)
    return policy.model_copy(update={"gates": policy.gates | {"full": gate}})


@pytest.mark.parametrize("lost", [3, 8])
def test_the_budget_of_the_width_decides_and_not_the_margin(lost: int) -> None:
    answered = items([(1, 1)] * (300 - lost) + [(1, 0)] * lost)
    worse = task_eval((task(CAPABILITIES[0], answered), *map(task, CAPABILITIES[1:])))
    measured = [worse if isinstance(one, TaskEval) else one for one in contents()]
    wide = {name: {"margin": 0.2, "confidence": 0.95, "min_items": 149} for name in CAPABILITIES}
    facts = release([*measured, training()])
    _, check, _ = decision_of(facts, with_gate(capabilities=wide, budgets={2: 0.01}))
    assert check.outcome in {"inconclusive", "fail"} and "The budget for 2 bit is 1.0%" in check.reason
    assert decision_of(facts, with_gate(capabilities=wide, budgets={2: 0.1}))[1].outcome == "pass"
    assert decision_of(facts, with_gate(capabilities=wide, budgets={3: 0.1}))[1].outcome == "missing"


def test_a_loss_beyond_the_budget_fails_and_says_what_is_left_to_do() -> None:
    answered = items([(1, 1)] * 120 + [(1, 0)] * 80)
    worse = task_eval((task(CAPABILITIES[0], answered), *map(task, CAPABILITIES[1:])))
    _, check, answer = decision_of(
        release([worse if isinstance(one, TaskEval) else one for one in contents()] + [training()])
    )
    assert check.outcome == "fail" and "fell from" in check.reason and answer.answer == "no"
    assert check.fix == "train longer, or stay at 4 bit"


@pytest.mark.parametrize(
    ("bits", "budget"), [(3.0, 0.03), (3.4, 0.03), (3.99, 0.03), (2.0, 0.01), (2.9, 0.01), (1.58, None), (1.0, None)]
)
def test_a_width_has_the_budget_of_the_nearest_one_below(bits: float, budget: float | None) -> None:
    assert Gate(checks=(), budgets={2: 0.01, 3: 0.03}).budget_for(bits) == budget


def test_a_width_without_a_budget_is_refused_with_what_to_ask_for() -> None:
    facts = replace(release(), model=narrow(4, 1.58))
    _, check, _ = decision_of(facts)
    assert check.outcome == "missing" and "1.58 bit in 1 matrices is below 4" in check.reason
    assert "no quality budget for 1.58 bit; the lowest is for 2 bit" in check.reason
    assert "budgets: {1.58: 0.02}" in check.fix
    _, check, _ = decision_of(release(), load_policy(load_policies() / "strict.yaml"))
    assert "no quality budget for 2 bit" in check.reason


def load_policies() -> Any:
    from mlflow_quantgov.resources import policies_dir

    return policies_dir()


def test_a_gate_without_capabilities_lets_nothing_narrow_through() -> None:
    _, check, _ = decision_of(release(), with_gate(capabilities={}))
    assert check.outcome == "missing" and "the policy's gate names none" in check.reason


def test_on_another_scale_the_budget_is_a_share_of_it() -> None:
    answered = tuple(
        one.model_copy(update={"parent": Answer(score=8.0, output="x"), "quantized": Answer(score=7.9, output="y")})
        for one in items([(1, 1)] * 200)
    )
    scale = {"margin": 2.0, "confidence": 0.95, "min_items": 149, "score_range": [0.0, 10.0]}
    wanted = {name: {"margin": 0.02, "min_items": 149} for name in CAPABILITIES[1:]} | {CAPABILITIES[0]: scale}
    measured = task_eval((task(CAPABILITIES[0], answered), *map(task, CAPABILITIES[1:])))
    before = wider_eval(tasks=(task(CAPABILITIES[0], answered), *map(task, CAPABILITIES[1:])))
    facts = release(
        [*(measured if isinstance(one, TaskEval) else one for one in contents()), training()],
        siblings=(sibling(before),),
    )
    _, check, _ = decision_of(facts, with_gate(capabilities=wanted, budgets={2: 0.05}))
    assert check.numbers["budget"][CAPABILITIES[0]]["margin"] == pytest.approx(0.5)


@pytest.mark.parametrize("budgets", ["{0: 0.02}", "{2: 0}", "{2: 1}", "{two: 0.02}", "{2: -0.1}"])
def test_budgets_that_make_no_sense_are_refused(budgets: str) -> None:
    from mlflow_quantgov.errors import PolicyError

    text = load_policy().text.replace("budgets: {3: 0.02, 2: 0.02}", f"budgets: {budgets}")
    with pytest.raises(PolicyError, match="budgets"):
        parse_policy(text, source="policy.yaml")


def lineage_of(facts: Facts, level: str) -> CheckResult:
    policy = with_gate(lineage_level=level)
    return next(one for one in decide(policy, facts, "@champion").checks if one.check == "lineage")


def test_lineage_goes_through_the_checkpoint_and_says_so() -> None:
    facts = release()
    assert facts.lineage is not None
    refuted = replace(facts.lineage, descent=descent("refuted"), problems=("Not the parent's.",))
    through = replace(facts, lineage=with_checkpoint(refuted, checkpoint()))
    found = lineage_of(through, "numeric")
    assert found.outcome == "pass"
    assert (
        found.reason
        == "Parent models:/chat/1, proved up to numeric through the trained checkpoint models:/chat-trained/1."
    )
    again = lineage_of(through, "reproduced")
    assert (again.outcome, again.fix) == (
        "missing",
        "quantgov reproduce models:/chat/2 --checkpoint models:/chat-trained/1",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kinship": kin(0.01)},
        {"descent": descent("refuted")},
        {"descent": descent("unproved")},
        {"model": full_precision(warnings=("on-k-bit-grid",))},
        {"descent_of_original": descent("proved")},
    ],
)
def test_no_other_refuted_lineage_gets_through(change: dict[str, Any]) -> None:
    facts = release(checkpoint=checkpoint(**change))
    assert facts.lineage is not None and facts.checkpoint is not None and facts.checkpoint.fault is not None
    refuted = replace(facts.lineage, descent=descent("refuted"), problems=("Not the parent's.",))
    found = lineage_of(replace(facts, lineage=with_checkpoint(refuted, facts.checkpoint)), "numeric")
    assert found.outcome == "fail" and "Not the parent's." in found.reason and facts.checkpoint.fault[1] in found.reason


def test_a_checkpoint_lifts_no_lineage_that_failed_before() -> None:
    facts = release()
    assert facts.lineage is not None
    assert with_checkpoint(replace(facts.lineage, level="digest"), checkpoint()).level == "digest"


def test_the_latest_training_statement_counts() -> None:
    facts = release()
    other: Evidence = evidence(training(checkpoint_uri="models:/other/7"), minutes=-1)
    _, check, _ = decision_of(replace(facts, evidence=(*facts.evidence, other)))
    assert check.outcome == "missing" and "models:/other/7 was not compared" in check.reason


@pytest.mark.parametrize("change", [{"run": "  "}, {"code_version": ""}, {"steps": 0}, {"checkpoint_uri": "models:/x@champion"},
                                    {"data_digest": "md5"}])  # fmt: skip
def test_a_training_statement_names_run_steps_data_and_code(change: dict[str, Any]) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        training(**change)
