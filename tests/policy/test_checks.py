"""Each check, by a good release with one thing wrong: that check refuses, for that reason, and no other does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from releases import (
    CAPABILITIES,
    FAST,
    MACHINE,
    MANIFEST,
    MODEL,
    NOW,
    PARENT,
    SLOW,
    archive,
    benchmark,
    benchmark_alone,
    benchmark_v1,
    calibration,
    contents,
    digest,
    drill,
    evidence,
    facts_of,
    fidelity,
    items,
    kernels,
    model_facts,
    provenance,
    resources,
    side,
    target,
    task,
    task_eval,
    timed,
    watched,
)

from mlflow_quantgov.artifact.derivation.descent import Descent, LayerDescent, Trace
from mlflow_quantgov.artifact.quantization import LayerQuantization
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.weights import WeightPart, weights_digest
from mlflow_quantgov.evidence.predicates import ArchivedFile, Benchmark, Lookup, Predicate, Reproduction
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Cause, MustImprove, NotLoaded, Resources
from mlflow_quantgov.evidence.predicates.fidelity import ENGAGED_TOKENS
from mlflow_quantgov.evidence.predicates.reproduction import MadePart
from mlflow_quantgov.policy.checks.clusters import clusters_of
from mlflow_quantgov.policy.checks.floors import judge_floors
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.engine import decide
from mlflow_quantgov.policy.facts import Facts
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.schema import BenchmarkDemand, Floors, Policy
from mlflow_quantgov.resources import policies_dir


def judge(facts: Facts, policy: Policy | None = None) -> Decision:
    return decide(policy or load_policy(), facts, "@champion")


def with_one(replacement: Predicate) -> list[Predicate]:
    """Everything measured, with one measurement replaced by another of its kind."""
    return [replacement if one.KIND == replacement.KIND else one for one in contents()]


def refusals(decision: Decision) -> dict[str, tuple[str, str]]:
    return {check.check: (check.outcome, check.reason) for check in decision.checks if check.refuses}


def test_a_good_release_passes_and_answers_yes_five_times() -> None:
    decision = judge(facts_of())
    assert decision.allowed, refusals(decision)
    assert [one.answer for one in decision.self_audit] == ["yes"] * 5


@pytest.mark.parametrize("absent", range(6))
def test_what_was_not_measured_never_passes(absent: int) -> None:
    decision = judge(facts_of([one for number, one in enumerate(contents()) if number != absent]))
    assert next(iter(refusals(decision).values()))[0] == "missing"
    assert decision.exit_code == 3


LOST = items([(1, 1)] * 100 + [(1, 0)] * 60 + [(0, 0)] * 40, "lost")
FEW = items([(1, 1)] * 100, "few")


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (
            task_eval((task("edge-cases", LOST), *map(task, CAPABILITIES[:2]))),
            "fail",
            "edge-cases fell from 80.0% to 50.0%",
        ),
        (task_eval((task("edge-cases", FEW), *map(task, CAPABILITIES[:2]))), "inconclusive", "100 items"),
        (task_eval(tuple(map(task, CAPABILITIES[:2]))), "missing", "no task for edge-cases"),
        (
            task_eval(tuple(task(name, output_type="multiple_choice") for name in CAPABILITIES)),
            "missing",
            "multiple choice",
        ),
        (task_eval(quantized=side(digest("9"))), "missing", "Not measured"),
        (task_eval(parent=side(digest("9"))), "missing", "Not measured"),
        (task_eval(quantized=side(MODEL, behaviour=digest("9"))), "missing", "Not measured"),
        (task_eval(quantized=side(MODEL, behaviour=None)), "missing", "Not measured"),
        (task_eval(parent=side(MODEL)), "missing", "Not measured"),
        (task_eval(quantized=side(MODEL, dequantized=True)), "missing", "llama.cpp expanded the weights"),
        (task_eval(quantized=side(MODEL, dequantized=None)), "missing", "nobody recorded"),
        (
            task_eval((task("edge-cases", items([(100.0, 100.0)] * 200)), *map(task, CAPABILITIES[:2]))),
            "missing",
            "scores outside 0 to 1",
        ),
        (
            task_eval((task("edge-cases", items([(0.01, 0.008)] * 300)), *map(task, CAPABILITIES[:2]))),
            "inconclusive",
            "could not be seen",
        ),
    ],
)
def test_task_evaluation(measured: Predicate, outcome: str, words: str) -> None:
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["task-eval"]
    assert found["task-eval"][0] == outcome and words in found["task-eval"][1]


def test_a_filler_task_does_not_hide_one_that_was_lost() -> None:
    """On 6,300 items together the loss is one point; on the task itself it is thirty."""
    filler = task("edge-cases", items([(1, 1)] * 6000, "filler"), task="filler")
    measured = task_eval((task("edge-cases", LOST), filler, *map(task, CAPABILITIES[:2])))
    outcome, reason = refusals(judge(facts_of(with_one(measured))))["task-eval"]
    assert outcome == "fail" and "task-edge-cases alone fell" in reason


def test_the_same_question_twice_is_no_second_piece_of_evidence() -> None:
    one = items([(1, 1)])[0]
    copies = tuple(one.model_copy(update={"id": str(number)}) for number in range(300))
    measured = task_eval((task("edge-cases", copies), *map(task, CAPABILITIES[:2])))
    assert refusals(judge(facts_of(with_one(measured))))["task-eval"][0] == "inconclusive"


def test_one_task_under_two_names_shows_one_thing() -> None:
    """Unless it is scored by another metric, or the policy itself names the task for both."""
    easy = task("edge-cases")
    twice = easy.model_copy(update={"task": "other", "capability": "instruction-following"})
    measured = task_eval((easy, twice, task("multi-step-reasoning")))
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["task-eval"] and "measured by the same items (200 of 200" in found["task-eval"][1]
    renamed = twice.model_copy(update={"metric": "follows"})
    found = refusals(judge(facts_of(with_one(task_eval((easy, renamed, task("multi-step-reasoning")))))))
    assert list(found) == ["task-eval"] and "measured by the same items (200 of 200" in found["task-eval"][1]
    scored = items([(1, 1)] * 175 + [(0, 0)] * 25, "edge-cases")
    otherwise = renamed.model_copy(update={"items": scored})
    assert judge(facts_of(with_one(task_eval((easy, otherwise, task("multi-step-reasoning")))))).allowed
    right = easy.model_copy(update={"items": items([(1, 1)] * 200, "edge-cases")})
    also = right.model_copy(update={"task": "other", "capability": "instruction-following", "metric": "follows"})
    assert judge(facts_of(with_one(task_eval((right, also, task("multi-step-reasoning")))))).allowed
    named = load_policy().text.replace("instruction-following: {", "instruction-following: {tasks: [task-edge-cases], ")
    assert judge(facts_of(with_one(measured)), parse_policy(named, source="p.yaml")).allowed


@pytest.mark.parametrize(
    "metric",
    [
        "word_perplexity",
        "bits_per_byte",
        "target_loglikelihood",
        "ppl",
        "bits_per_char,none",
        "mean_logprob",
        "eval_loss",
    ],
)
def test_a_perplexity_under_the_name_of_a_task_is_none(metric: str) -> None:
    rated = task("edge-cases", items([(0.5, 0.5)] * 200), metric=metric)
    found = refusals(judge(facts_of(with_one(task_eval((rated, *map(task, CAPABILITIES[:2])))))))
    assert found["task-eval"][0] == "missing" and "which is a perplexity" in found["task-eval"][1]
    held = task("edge-cases", items([(1, 1)] * 200, "last word"), task="last-word", output_type="loglikelihood")
    assert judge(facts_of(with_one(task_eval((held, *map(task, CAPABILITIES[:2])))))).allowed


def test_evidence_about_another_pair_says_of_which() -> None:
    for measured, words in (
        (task_eval(quantized=side(digest("9"))), "of other weights than this version's"),
        (task_eval(parent=side(digest("9"))), "against other weights than its parent's"),
        (
            task_eval(quantized=side(MODEL, behaviour=digest("9"))),
            "of this version's weights with another configuration",
        ),
        (task_eval(parent=side(PARENT, behaviour=digest("9"))), "of its parent's weights with another configuration"),
    ):
        assert words in refusals(judge(facts_of(with_one(measured))))["task-eval"][1]


def test_a_recipe_that_names_another_calibration_file_refuses() -> None:
    data = {one.KIND: one for one in contents()}["calibration"].data  # type: ignore[attr-defined]
    named = Recipe(quantizer="gptqmodel", version="7", calibration=digest("9"))
    found = refusals(judge(facts_of(recipe=named)))
    assert list(found) == ["calibration"] and "names the calibration file" in found["calibration"][1]
    for calibration_file in (None, data.digest):
        assert judge(facts_of(recipe=named.model_copy(update={"calibration": calibration_file}))).allowed


def test_clusters_join_groups_and_equal_prompts() -> None:
    found = [one.model_copy(update={"group": group}) for one, group in zip(items([(1, 1)] * 5), "aabcc", strict=True)]
    found[2] = found[2].model_copy(update={"prompt_sha256": found[3].prompt_sha256})
    assert [number == other for number, other in zip(clusters_of(found), clusters_of(found)[1:], strict=False)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_pinned_task_counts_with_its_metric_and_all_its_items() -> None:
    pins: list[Any] = [
        {"digest": digest("c"), "task": f"task-{name}", "metric": "exact_match", "min_items": 200}
        for name in CAPABILITIES
    ]
    assert judge(facts_of(), pinned(tasks=pins)).allowed
    assert judge(facts_of(), pinned(tasks=[digest("c")])).allowed
    for change in ({"metric": "f1"}, {"min_items": 201}, {"task": "other"}, {"digest": digest("d")}):
        decision = judge(facts_of(), pinned(tasks=[pins[0] | change, *pins[1:]]))
        assert list(refusals(decision)) == ["task-eval"]


def pinned(**yardsticks: Any) -> Policy:
    """The default policy with yardsticks."""
    import yaml

    value = yaml.safe_load(load_policy().text)
    value["rules"][0]["yardsticks"] = yardsticks
    return parse_policy(yaml.safe_dump(value), source="test")


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (calibration(production=None, likeness=()), "missing", "no production sample"),
        (calibration(generic_set="wikitext"), "fail", "generic set wikitext, which no production sends"),
        (calibration(leaked_documents=3), "fail", "evaluation items"),
        (calibration(shared_with_production=3), "fail", "also in the production sample"),
        (calibration(likeness=()), "inconclusive", "at least 4 different documents on each side"),
    ],
)
def test_calibration(measured: Predicate, outcome: str, words: str) -> None:
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["calibration"]
    assert found["calibration"][0] == outcome and words in found["calibration"][1]


def test_what_the_layers_see_is_judged_where_it_was_measured_and_needed_where_the_policy_says_so() -> None:
    demanding = parse_policy(
        load_policy().text.replace("    least_bits:", "    calibration: {activations: required}\n    least_bits:"),
        source="p.yaml",
    )
    assert judge(facts_of()).allowed
    missing = refusals(judge(facts_of(), demanding))["calibration"]
    assert missing[0] == "missing" and "what the parent's layers see" in missing[1]
    for seen, outcome in ((watched(), None), (watched(parent="c"), "missing"), (watched(apart=0.5), "fail")):
        found = refusals(judge(facts_of(with_one(seen)), demanding))
        assert found.get("calibration", (None,))[0] == outcome
    assert refusals(judge(facts_of(with_one(watched(apart=0.5)))))["calibration"][0] == "fail"
    strict = load_policy(policies_dir() / "strict.yaml")
    assert strict.gates["full"].calibration.activations == "required"


def test_calibration_is_not_asked_for_where_the_bytes_need_none() -> None:
    measured = [one for one in contents() if one.KIND != "calibration"]
    assert judge(facts_of(measured, model=model_facts(MODEL, calibration_required=False))).allowed
    assert not judge(facts_of(measured, model=model_facts(MODEL, calibration_required=None))).allowed
    noted = model_facts(MODEL, calibration_required=False, calibration_data=("calib.jsonl",))
    assert refusals(judge(facts_of(measured, model=noted)))["calibration"][0] == "missing"


def test_calibration_is_not_asked_for_where_a_recipe_without_data_gave_the_same_bytes() -> None:
    """Where the bytes leave it open whether rounding was all."""
    made = MadePart(name="w", sha256="1" * 64, dtype="U8", shape=(8,))
    weights = weights_digest([WeightPart(made.name, made.sha256, made.dtype, made.shape)])
    measured = [one for one in contents() if one.KIND in {"archive", "drill"}]

    def found(recipe: Recipe, required: bool | None = None) -> CheckResult:
        again = Reproduction.measured(
            provenance=provenance(),
            weights=weights,
            parent=PARENT,
            recipe=recipe,
            ran_version="1",
            machine=MACHINE,
            made=(made,),
        )
        model = replace(model_facts(MODEL, calibration_required=required), weights=weights)
        facts = facts_of(measured, model=model, recipe=recipe)
        facts = replace(facts, evidence=(*facts.evidence, evidence(again, subject=weights)))
        return next(one for one in judge(facts).checks if one.check == "calibration")

    plain = Recipe(quantizer="onnxruntime-genai", version="1")
    assert found(plain).outcome == "not-applicable" and len(found(plain).evidence) == 1
    assert found(plain, required=True).outcome == "missing"
    assert found(plain.model_copy(update={"version": "2"})).outcome == "missing"
    with_data = found(plain.model_copy(update={"calibration": digest("3")}))
    assert with_data.outcome == "missing" and "a recipe without data made it: quantgov reproduce" in with_data.fix


def test_a_pass_needs_a_search_for_evaluation_items() -> None:
    evaluated = {one.KIND: one for one in contents()}["task-eval"].tasks[0].task_digest  # type: ignore[attr-defined]
    refused = refusals(judge(facts_of(with_one(calibration(searched_tasks=None)))))
    assert list(refused) == ["calibration"] and refused["calibration"][0] == "missing"
    assert "evaluation items" in refused["calibration"][1]
    elsewhere = refusals(judge(facts_of(with_one(calibration(searched_tasks=digest("0"))))))
    assert list(elsewhere) == ["calibration"] and elsewhere["calibration"][0] == "missing"
    assert "searched for other evaluation items" in elsewhere["calibration"][1]
    assert judge(facts_of(with_one(calibration(searched_tasks=evaluated)))).allowed
    # A folder that was asked too, and on which no capability rests, is no other.
    trifle = task("edge-cases", task="trifle", task_digest=digest("0")).model_copy(update={"capability": None})
    tasks = (*map(task, CAPABILITIES), trifle)
    measured = [
        calibration(searched_tasks=digest("0")),
        *(one for one in with_one(task_eval(tasks)) if one.KIND != "calibration"),
    ]
    assert "asked in task-multi-step-reasoning, task-inst" in refusals(judge(facts_of(measured)))["calibration"][1]
    # Several folders are searched one by one, and in the same documents; tasks that lm-eval ships have digests of their own.
    apart = task_eval((task("edge-cases", task_digest=digest("0")), *map(task, CAPABILITIES[:2])))
    rest = [one for one in with_one(apart) if one.KIND != "calibration"]
    assert "asked in task-edge-cases" in refusals(judge(facts_of([*rest, calibration()])))["calibration"][1]
    also = calibration(searched_tasks=digest("0"))
    assert judge(facts_of([*rest, also, calibration()])).allowed
    assert judge(facts_of([*rest, calibration(searched_tasks=digest("7"), searched=(digest("0"), evaluated))])).allowed
    for other in (
        calibration(searched_tasks=digest("0"), leaked_documents=1),
        calibration(searched_tasks=digest("0"), data=also.data.model_copy(update={"digest": digest("8")})),
    ):
        assert "calibration" in refusals(judge(facts_of([*rest, other, calibration()])))
    # Records that were imported come from no folder that could be searched.
    imported = task_eval(provenance=provenance(imported=True))
    measured = [
        calibration(searched_tasks=digest("0")) if one.KIND == "calibration" else one for one in with_one(imported)
    ]
    assert judge(facts_of(measured)).allowed


def test_log_probabilities_that_equal_the_parents_refuse_whatever_the_tasks_say() -> None:
    """Nothing quantized ran: then equal answers are no evidence. A thousand tokens are needed to say so."""
    for tokens, refuses in ((ENGAGED_TOKENS, True), (ENGAGED_TOKENS - 1, False)):
        measured = fidelity(tokens, identical=tokens)
        decision = judge(facts_of([*contents(), measured]))
        found = refusals(decision)
        assert list(found) == (["task-eval"] if refuses else [])
        if refuses:
            cited = next(one.evidence for one in decision.checks if one.check == "task-eval")
            assert cited == (evidence(measured).digest,)
            assert found["task-eval"][0] == "fail" and "never engaged" in found["task-eval"][1]
    assert judge(facts_of([*contents(), fidelity(ENGAGED_TOKENS, identical=ENGAGED_TOKENS - 1)])).allowed


def test_metadata_that_name_a_generic_set_refuse_whatever_was_attached() -> None:
    model = model_facts(MODEL, calibration_data=("wiki.train.raw",))
    found = refusals(judge(facts_of(contents(), model=model, generic_set="wikitext")))
    assert list(found) == ["calibration"] and found["calibration"][0] == "fail"
    assert "wiki.train.raw" in found["calibration"][1] and "generic set wikitext" in found["calibration"][1]


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (kernels(target_digest=digest("9")), "missing", "no kernel was confirmed"),
        (kernels(dequantized=True), "fail", "dequantizes"),
        (kernels(probed=False, side=None, not_probed_because="no GPU"), "missing", "no GPU"),
        (kernels(side=side(digest("9"))), "missing", "no kernel was confirmed"),
        (kernels(side=side(MODEL, runtime="transformers")), "missing", "seen in transformers"),
    ],
)
def test_kernels(measured: Predicate, outcome: str, words: str) -> None:
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["kernel-support"]
    assert found["kernel-support"][0] == outcome and words in found["kernel-support"][1]


def test_the_row_of_the_kernel_table_is_the_gates_own() -> None:
    """A statement that claims an optimized kernel does not make one."""
    slow = Lookup(runtime="llama.cpp", support="works-slowly", row="own", source="own")
    assert refusals(judge(facts_of(kernel=slow)))["kernel-support"][0] == "fail"


OTHER_LOAD = {"batch": 1, "prompt_tokens": 1, "output_tokens": 1}


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (benchmark(target_digest=digest("9")), "missing", "no benchmark on mine"),
        (
            benchmark(fingerprint=MACHINE.model_copy(update={"cpu_model": "other", "cores": 4})),
            "fail",
            "another machine. CPU: other here, CPU on the target; cores: 4 here, 2 on the target",
        ),
        (
            benchmark(fingerprint=None, hardware_unknown="what serves at http://far/v1 is not seen from here"),
            "fail",
            "The hardware is not known: what serves at http://far/v1",
        ),
        (benchmark(quantized=side(digest("9"))), "missing", "no benchmark"),
        (benchmark(quantized=side(MODEL, runtime="vllm")), "missing", "it ran in vllm"),
        (benchmark(quantized=side(MODEL, runtime="openai")), "missing", "it ran in openai"),
        (benchmark(quantized=side(MODEL, dequantized=True)), "missing", "llama.cpp expanded the weights"),
        (benchmark(quantized=side(MODEL, dequantized=None)), "missing", "nobody recorded"),
        (benchmark(quantized=side(MODEL, version="2")), "missing", "versions 1 and 2"),
        (benchmark(loads=(timed(**OTHER_LOAD),)), "missing", "was not timed"),
        (benchmark(loads=(timed(FAST, SLOW),)), "fail", "Slower than its parent"),
        (benchmark(loads=(timed(rounds=6),)), "inconclusive", "6 rounds are too few"),
        (benchmark(quantized_resources=Resources()), "missing", "Memory was not measured"),
        (benchmark(quantized_resources=resources(400_000)), "fail", "1.50 times"),
        (benchmark_alone(), "missing", "the policy names no floors"),
        (
            benchmark(provenance=provenance(imported=True), parent_tries=(), quantized_tries=()),
            "missing",
            "in which lossless configurations the parent was tried",
        ),
        (benchmark_v1(), "missing", "not in its fastest lossless configuration"),
    ],
)
def test_benchmark(measured: Predicate, outcome: str, words: str) -> None:
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["benchmark"]
    assert found["benchmark"][0] == outcome and words in found["benchmark"][1]


def test_a_benchmark_in_a_version_that_the_target_does_not_serve_with_does_not_count() -> None:
    wanted = target().model_copy(update={"runtime_version": ">=2"})
    old = benchmark(target_digest=wanted.digest)
    new = benchmark(target_digest=wanted.digest, parent=side(PARENT, version="2"), quantized=side(MODEL, version="2"))
    said = refusals(judge(facts_of(with_one(old), target=wanted)))["benchmark"]
    assert said[0] == "missing" and "llama.cpp 1, the target serves with >=2" in said[1]
    assert "benchmark" not in refusals(judge(facts_of(with_one(new), target=wanted)))


def test_a_benchmark_of_endpoints_serves_any_runtime_and_is_labelled() -> None:
    served = {"runtime": "openai", "dequantized": None, "behaviour": None}
    measured = benchmark(
        provenance=provenance(imported=True), parent=side(PARENT, **served), quantized=side(MODEL, **served),
        parent_tries=(), quantized_tries=(),
    )  # fmt: skip
    decision = judge(facts_of(with_one(measured)))
    assert not refusals(decision) and any("imported" in one and "benchmark" in one for one in decision.labels)
    unseen = judge(facts_of(with_one(measured_again(measured, Resources()))))
    (found,) = [one for one in unseen.checks if one.check == "benchmark"]
    assert found.outcome == "missing" and "must_improve: speed" in found.fix


def measured_again(content: Benchmark, resources: Resources) -> Benchmark:
    """The same, with other resources of both sides."""
    changed = content.model_copy(update={"parent_resources": resources, "quantized_resources": resources})
    return changed.model_copy(update={"summary": changed.recompute()})


@pytest.mark.parametrize(
    ("must_improve", "cause", "floors", "outcome", "words"),
    [
        ("both", "refused", {"decode_tokens_per_second": 20}, "missing", "no ceiling for memory"),
        ("both", "refused", {"decode_tokens_per_second": 20, "peak_memory_gb": 0.0001}, "pass", "0.0001 GB"),
        ("memory", "refused", {"peak_memory_gb": 0.0001}, "pass", "0.0001 GB"),
        ("speed", "refused", {"decode_tokens_per_second": 20}, "pass", "the runtime refused it"),
        ("both", "memory", {"decode_tokens_per_second": 20}, "pass", "its memory ran out"),
    ],
)
def test_floors_cover_what_the_target_asks_for(
    must_improve: MustImprove, cause: Cause, floors: dict[str, float], outcome: str, words: str
) -> None:
    lost = NotLoaded(cause=cause, error="it said no", free_memory_bytes=10**9)
    found = judge_floors(benchmark_alone(parent_not_loaded=lost), Floors(**floors), must_improve, "decode")
    assert (found.outcome, words in found.reason) == (outcome, True), found.reason


def test_memory_cannot_have_run_out_where_the_parent_would_have_fitted_four_times() -> None:
    roomy = NotLoaded(cause="memory", error="killed", free_memory_bytes=8 * 10**9)
    found = judge(facts_of(with_one(benchmark_alone(parent_not_loaded=roomy))))
    assert "its files take 1 GB and 8.0 GB were free" in refusals(found)["benchmark"][1]


@pytest.mark.parametrize(
    ("floors", "outcome", "words"),
    [
        ({"decode_tokens_per_second": 20}, "pass", "20 to 20 against the floor 20"),
        ({"decode_tokens_per_second": 21}, "fail", "decode, tokens/s at batch 1"),
        ({"prefill_tokens_per_second": 21}, "missing", "no floor for decode"),
        ({"decode_tokens_per_second": 20, "prefill_tokens_per_second": 300}, "fail", "prefill, tokens/s"),
        ({"decode_tokens_per_second": 20, "time_to_first_token_ms": 640}, "pass", "640 to 640 against the ceiling 640"),
        ({"decode_tokens_per_second": 20, "time_to_first_token_ms": 600}, "fail", "time to first token, ms"),
        ({"decode_tokens_per_second": 20, "peak_memory_gb": 0.0001}, "pass", "0.0001 GB"),
        ({"decode_tokens_per_second": 20, "peak_memory_gb": 0.00005}, "fail", "against the ceiling"),
    ],
)
def test_floors_judge_a_version_whose_parent_does_not_load(floors: dict[str, float], outcome: str, words: str) -> None:
    policy = load_policy()
    demanded = policy.gates["full"].model_copy(update={"benchmark": BenchmarkDemand(floors=Floors(**floors))})
    policy = policy.model_copy(update={"gates": policy.gates | {"full": demanded}})
    checks = judge(facts_of(with_one(benchmark_alone())), policy).checks
    (found,) = [one for one in checks if one.check == "benchmark"]
    assert (found.outcome, words.lower() in found.reason.lower()) == (outcome, True), found.reason
    assert "memory ran out with 2.0 GB free" in found.reason
    assert any(
        one.startswith("not compared with its parent") for one in judge(facts_of(with_one(benchmark_alone()))).labels
    )
    slow = facts_of(with_one(benchmark(loads=(timed(FAST, SLOW),))))
    assert refusals(judge(slow, policy))["benchmark"][0] == "fail"  # floors excuse nobody whose parent runs


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (archive(manifest_digest=digest("9")), "missing", "not archived"),
        (archive(files=(ArchivedFile(path="config.json", size=1, sha256="1" * 64),)), "missing", "not archived whole"),
        (drill(manifest_digest=digest("9")), "missing", "no restore drill"),
        (drill(store="file:///elsewhere"), "missing", "no restore drill"),
        (drill(answered=False), "fail", "did not answer"),
        (drill(prompt_sha256="1" * 64, answer_sha256="1" * 64), "fail", "not compared"),
        (drill(verified_files=2), "fail", "verified 2 of the 1 files"),
        (drill(provenance=provenance(measured_at=NOW - timedelta(days=100))), "missing", "100 days old"),
    ],
)
def test_rollback(measured: Predicate, outcome: str, words: str) -> None:
    found = refusals(judge(facts_of(with_one(measured))))
    assert list(found) == ["rollback-archive"]
    assert found["rollback-archive"][0] == outcome and words in found["rollback-archive"][1]


def test_rollback_needs_a_version_to_go_back_to_and_a_switch() -> None:
    good = facts_of()
    assert good.lineage is not None and good.target is not None
    homeless = replace(good, lineage=replace(good.lineage, parent_version=None))
    assert "no version of chat" in refusals(judge(homeless))["rollback-archive"][1]
    found = refusals(judge(replace(good, target=good.target.model_copy(update={"flag": None}))))
    assert "No switch" in found["rollback-archive"][1]


def layers(*bits: float) -> dict[str, Any]:
    return {"layers": tuple(LayerQuantization(f"l{number}", one, 32, (10, 10)) for number, one in enumerate(bits))}


def test_a_mixture_is_as_bold_as_its_boldest_matrix() -> None:
    mixed = model_facts(MODEL, **layers(4, 4, 2))
    outcome, reason = refusals(judge(facts_of(model=mixed)))["bit-width"]
    assert outcome == "missing" and "2 bit in 1 matrices" in reason


@pytest.mark.parametrize(
    ("change", "check", "outcome"),
    [
        ({"problems": ("quantgov/evidence/x.json was altered",)}, "identity", "fail"),
        ({"recorded_manifest": None}, "identity", "missing"),
        ({"recorded_manifest": digest("9")}, "identity", "fail"),
        ({"model": model_facts(MODEL, warnings=("not-inspected: a.bin also holds weights",))}, "identity", "fail"),
        ({"target": None}, "format-fit", "missing"),
        ({"model": model_facts(MODEL, format="gptq")}, "format-fit", "fail"),
    ],
)
def test_identity_and_format(change: dict[str, Any], check: str, outcome: str) -> None:
    assert refusals(judge(facts_of(**change)))[check][0] == outcome


def test_lineage_below_the_demanded_level_is_refused() -> None:
    good = facts_of()
    assert good.lineage is not None
    weak = replace(good, lineage=replace(good.lineage, level="digest", problems=("another width",)))
    assert "another width" in refusals(judge(weak))["lineage"][1]
    written_back = model_facts(PARENT, warnings=("on-k-bit-grid",))
    suspicious = replace(good, lineage=replace(good.lineage, parent=written_back))
    assert "k-bit grid" in refusals(judge(suspicious))["lineage"][1]
    assert judge(suspicious, pinned(parents=[PARENT])).allowed
    assert not judge(good, pinned(parents=[digest("9")])).allowed


def test_a_parent_beside_which_other_weights_lie_is_refused_even_where_it_is_pinned() -> None:
    good = facts_of()
    assert good.lineage is not None
    beside = model_facts(PARENT, warnings=("not-inspected: rest.safetensors also holds weights",))
    found = judge(replace(good, lineage=replace(good.lineage, parent=beside)), pinned(parents=[PARENT]))
    outcome, reason = refusals(found)["lineage"]
    assert outcome == "fail" and "rest.safetensors also holds weights, and nobody can tell" in reason
    (fix,) = [one.fix for one in found.checks if one.check == "lineage"]
    assert fix.startswith("remove it from the folder, and log the model again")


@pytest.mark.parametrize("trace", ["rounded", "compensated"])
def test_lineage_says_which_change_would_have_shown(trace: Trace) -> None:
    good = facts_of()
    assert good.lineage is not None
    layer = LayerDescent("a.weight", "gptq", 4, 32, 4096, 0.1, 0.1, 20.0, 0.0, 0.5, 0.03, trace)
    proved = replace(good.lineage, level="numeric", descent=Descent("proved", "All fit.", (layer,), "as stored", 0.03))
    (said,) = [one.reason for one in judge(replace(good, lineage=proved)).checks if one.check == "lineage"]
    assert (
        "proved up to numeric. A change of the parent by 3 %, spread evenly over its weights, would have shown." in said
    )


def test_what_was_received_last_counts_whatever_date_it_claims() -> None:
    """An honest statement that came later is not beaten by one that dates itself years ahead."""
    lost = task_eval((task("edge-cases", LOST), *map(task, CAPABILITIES[:2])))
    ahead = task_eval(provenance=provenance(measured_at=NOW + timedelta(days=36500)))
    others = [one for one in contents() if one.KIND != "task-eval"]
    both = (*tuple(evidence(one) for one in others), evidence(ahead, minutes=5), evidence(lost, minutes=1))
    assert refusals(judge(facts_of(others, evidence=both)))["task-eval"][0] == "fail"


def parent_facts(**changes: Any) -> Facts:
    """A full-precision parent that is promoted itself."""
    measured = tuple(evidence(one) for one in (archive(), drill()))
    model = model_facts(PARENT)
    return replace(
        facts_of(),
        role="parent",
        model=model,
        lineage=None,
        recorded_manifest=MANIFEST,
        evidence=measured,
        **changes,
    )


def test_a_full_precision_model_that_nobody_pinned_is_labelled_and_refused_by_strict() -> None:
    decision = judge(parent_facts())
    assert decision.allowed and "chosen by author: parent" in decision.labels
    strict = load_policy(policies_dir() / "strict.yaml")
    assert not judge(parent_facts(), strict).allowed


def test_words_of_a_statement_reach_nobodys_terminal_as_commands() -> None:
    hostile = kernels(probed=False, side=None, not_probed_because="no\x1b[2J GPU\nquantgov allowed chat")
    reason = refusals(judge(facts_of(with_one(hostile))))["kernel-support"][1]
    assert "\x1b" not in reason and "\n" not in reason


@pytest.mark.parametrize("which", ["parent", "quantized"])
def test_a_side_that_ran_on_another_device_of_the_machine_was_not_measured(which: str) -> None:
    """A parent on the processor is slow beside anything on the GPU."""
    weights = {"parent": PARENT, "quantized": MODEL}[which]
    elsewhere = side(weights, settings={"device": "cuda:0"})
    found = refusals(judge(facts_of(with_one(benchmark(**{which: elsewhere})))))
    assert list(found) == ["benchmark"] and found["benchmark"][0] == "missing"
    assert "a side ran on CUDA, the target serves on CPU" in found["benchmark"][1]


def test_floats_on_a_grid_are_no_full_precision_unless_the_original_lies_on_it_too() -> None:
    good = facts_of()
    assert good.lineage is not None
    floats = {"format": "gguf", "method": None, "bits": None, "layers": (), "quantized_parameters": 0}
    written_back = replace(good, model=model_facts(MODEL, **floats, warnings=("on-k-bit-grid",)))
    outcome, reason = refusals(judge(written_back))["bit-width"]
    assert outcome == "missing" and "its floats lie on a k-bit grid" in reason
    on_grid = replace(good.lineage, parent=model_facts(PARENT, warnings=("on-k-bit-grid",)))
    cast = replace(written_back, lineage=on_grid)
    assert "bit-width" not in refusals(judge(cast, pinned(parents=[PARENT])))
    assert "lineage" in refusals(judge(cast))
