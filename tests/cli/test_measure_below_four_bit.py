"""`quantgov measure --all` below four bit: what people have to do first, in its order, and what waits for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_quantgov.api import Given
from mlflow_quantgov.api.measuring_all import planned
from mlflow_quantgov.policy.decision import CheckResult, Decision, Outcome

DEMO = Path(__file__).parents[2] / "src" / "mlflow_quantgov" / "demo" / "tasks" / "skills"
URI = "models:/skills/2"
Run = Callable[..., tuple[int, str, str]]
EVERYTHING = Given(tasks="tasks", text="text.jsonl", calibration="c.jsonl", production="p.jsonl")


def below_four(*conditions: str, outcome: Outcome = "missing", **others: Outcome) -> Decision:
    """What the gate says of a version whose width still needs something."""
    unmet = [{"condition": one, "outcome": "missing", "reason": f"{one}!", "fix": f"mend {one}"} for one in conditions]
    width = CheckResult("bit-width", outcome, "said", numbers={"unmet": unmet})
    checks = tuple(CheckResult(name.replace("_", "-"), one, "said") for name, one in others.items())
    return Decision(False, "@champion", "m", "1", "p", "sha256:0", "enforce", (width, *checks), ())


def test_below_four_bit_what_people_have_to_do_stands_first() -> None:
    steps = planned(below_four("budget", "wider", "training", "within", task_eval="missing"), EVERYTHING, URI)
    assert [(one.kind, one.check, one.state, one.said, one.fix) for one in steps[:3]] == [
        ("budget", "bit-width", "lacking", "budget!", "mend budget"),
        ("wider-version", "bit-width", "lacking", "wider!", "mend wider"),
        ("training", "bit-width", "lacking", "training!", "mend training"),
    ]
    # Measured before the wider version, it had to be measured again.
    assert (steps[-1].kind, steps[-1].state) == ("task-eval", "lacking") and "wider version" in steps[-1].said
    (alone,) = planned(below_four("training"), Given(), URI)
    assert (alone.kind, alone.state) == ("training", "lacking")


@pytest.mark.parametrize("condition", ["within", "order"])
def test_an_evaluation_that_only_the_width_still_needs_is_planned(condition: str) -> None:
    (step,) = planned(below_four(condition), Given(tasks="tasks"), URI)
    assert (step.kind, step.check, step.state) == ("task-eval", "bit-width", "planned")
    both = planned(below_four(condition, task_eval="inconclusive"), Given(tasks="tasks"), URI)
    assert [(one.kind, one.check) for one in both] == [("task-eval", "task-eval")]


def test_a_width_that_passes_or_is_waived_plans_nothing() -> None:
    assert (
        planned(below_four(outcome="pass"), Given(), URI)
        == planned(below_four("training", outcome="waived"), Given(), URI)
        == []
    )


@pytest.mark.slow
def test_a_version_below_four_bit_is_told_what_it_lacks(
    run_with_parent: Run, log_quantized: Callable[[str], None]
) -> None:
    run = run_with_parent
    log_quantized("Q2_K")
    _, out, _ = run("measure", URI, "--all", "--tasks", str(DEMO), "--json")
    steps = {step["kind"]: step for step in json.loads(out)["steps"]}
    assert {steps[kind]["state"] for kind in ("wider-version", "training", "task-eval")} == {"lacking"}
    assert "budget" not in steps and "evaluated first" in steps["wider-version"]["said"]
    assert steps["training"]["fix"].startswith(f"quantgov training {URI} --checkpoint")
    _, out, _ = run("measure", URI, "--all")
    said = " ".join(out.split())
    assert "wider-version cannot run" in said and "training cannot run" in said, said
    assert re.search(rf"Fix: quantize the parent at 4 bit; .*; quantgov training {URI} ", said), said
