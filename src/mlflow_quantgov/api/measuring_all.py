"""Everything that a gate will ask of a version: planned from the gate's own decision, measured cheapest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlflow_quantgov.api.archiving import archive, drill
from mlflow_quantgov.api.deciding import check
from mlflow_quantgov.api.evaluating import evaluate
from mlflow_quantgov.api.measuring import assess_calibration, benchmark, confirm_kernels, measure_fidelity
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.measure.fingerprint import differences, this_machine
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.predicates import Approval, SpotCheck
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.flavor.download import local_model
from mlflow_quantgov.policy.decision import CheckResult, Decision
from mlflow_quantgov.policy.spot_check_demand import NUMBERS
from mlflow_quantgov.versions import declared_target

State = Literal["planned", "running", "attached", "error", "lacking", "not-run"]
"""`lacking`: something has to be given first; `not-run`: a check had failed before."""


@dataclass(frozen=True)
class Given:
    """What the measurements need beside the version itself."""

    tasks: str | Path | Sequence[str] | None = None
    """Folder of lm-eval tasks, or names of tasks that lm-eval ships."""
    text: str | Path | None = None
    """Production-like documents for fidelity."""
    calibration: str | Path | None = None
    """What the quantizer saw."""
    production: str | Path | None = None
    """A sample of production traffic."""
    store: str | None = None
    """Archive; None for `QUANTGOV_ARCHIVE`."""
    target: str | Path | None = None
    """Target; None for the version's own."""
    key: str | Path | None = None
    """Private key that signs what is found."""


@dataclass
class Step:
    """One measurement, and how far it has come."""

    kind: str
    """`kernels`, `benchmark`, ...: the kind of its statement; or what people have to do first: see `_BY_PEOPLE`."""
    check: str
    """The check that it may settle; empty where it decides nothing."""
    state: State = "planned"
    said: str = ""
    """What it is doing, what it lacks, or why it failed."""
    fix: str = ""
    fraction: float = 0.0
    seconds: float | None = None
    outcome: str | None = None
    """What its check says afterwards; None for one that decides nothing, and where more is to come for the check."""
    statement: str | None = None
    """Digest of the attached statement."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "kind": self.kind,
            "check": self.check or None,
            "state": self.state,
            "said": self.said,
            "fix": self.fix,
            "seconds": self.seconds,
            "outcome": self.outcome,
            "statement_digest": self.statement,
        }


@dataclass
class Measured:
    """Every step, and what the gate says afterwards."""

    decision: Decision
    steps: list[Step] = field(default_factory=list)
    stopped_by: CheckResult | None = None
    """The check whose failure ended it; None where everything was tried."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "steps": [step.to_dict() for step in self.steps],
            "stopped_by": self.stopped_by.check if self.stopped_by else None,
            "decision": self.decision.to_dict(),
        }


Watch = Callable[[Measured], None]
# From seconds to hours: what fails early spares the rest.
_CHEAPEST_FIRST: tuple[tuple[str, str], ...] = (
    ("kernels", "kernel-support"),
    ("calibration", "calibration"),
    ("archive", "rollback-archive"),
    ("drill", "rollback-archive"),
    ("benchmark", "benchmark"),
    ("fidelity", ""),
    ("task-eval", "task-eval"),
)
_BY_PEOPLE = {"budget": "budget", "wider": "wider-version", "training": "training"}
"""What a version below the gate's least width needs and no measurement of it gives: condition of bit-width to a step."""


def measure_all(
    uri: str,
    given: Given,
    *,
    to: str = "@champion",
    keep_going: bool = False,
    again: bool = False,
    watch: Watch | None = None,
) -> Measured:
    """Measure whatever the gate still misses for a destination, cheapest first, and attach each result.

    A check that has failed ends it, since nothing that is measured afterwards would let the version through. What was
    attached stays; called again, it goes on with what is missing.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        given: Tasks, texts and other inputs; a measurement whose input is not there is said to lack it, and the
            others run.
        to: Destination whose gate is asked.
        keep_going: Go on after a check has failed.
        again: Measure what is settled already once more.
        watch: Called whenever something has moved.

    Returns:
        The steps, and the decision after the last of them.
    """
    seen = watch or (lambda _: None)
    found = Measured(check(uri, to))
    target = declared_target(local_model(uri)) if given.target is None else None
    found.steps = planned(found.decision, given, uri, again=again, target=target)
    seen(found)
    for place, step in enumerate(found.steps):
        if step.state == "lacking":
            continue
        found.stopped_by = None if keep_going else _failed(found.decision)
        if found.stopped_by is not None:
            step.state, step.said = "not-run", f"{found.stopped_by.check} has failed"
            continue
        _run(step, uri, given, lambda: seen(found))
        # An archive without its drill is no answer yet: what a check says is asked once nothing more is to come for it.
        rest = {one.check for one in found.steps[place + 1 :] if one.state == "planned"}
        if step.state == "attached" and step.check and step.check not in rest:
            found.decision = check(uri, to)
            step.outcome = next((one.outcome for one in found.decision.checks if one.check == step.check), None)
        seen(found)
    found.stopped_by = None if keep_going else _failed(found.decision)
    return found


def planned(
    decision: Decision, given: Given, uri: str, *, again: bool = False, target: Target | None = None
) -> list[Step]:
    """What is to be measured for a decision, cheapest first; what lacks an input says so.

    Args:
        decision: The gate's, before anything is measured.
        given: Inputs.
        uri: The version, for remedies.
        again: Measure what is settled already once more.
        target: The version's own, whose machine is asked for before minutes of timing that would not count; None where
            another is given.
    """
    checks, unmet = {one.check: one for one in decision.checks}, _unmet(decision)
    steps = [
        Step(kind, "bit-width", "lacking", unmet[condition]["reason"], unmet[condition]["fix"])
        for condition, kind in _BY_PEOPLE.items()
        if condition in unmet
    ]
    for kind, name in _CHEAPEST_FIRST:
        asked = checks.get(name or "task-eval")
        if not name:
            # Reported beside the tasks: that check says whether there is some already.
            wanted = given.text is not None and asked is not None and (again or not asked.numbers.get(kind))
        else:
            wanted = asked is not None and asked.outcome != "not-applicable" and (asked.refuses or again)
        if kind == "task-eval" and not wanted and unmet.keys() & {"within", "order"}:
            name, wanted = "bit-width", True
        if not wanted:
            continue
        lacks, fix = _lacking(kind, given, uri, target)
        if kind == "task-eval" and asked is not None and NUMBERS in asked.numbers and not again:
            # It was evaluated; to do so again would only make another evaluation that nobody has checked.
            kind, lacks, fix = SpotCheck.KIND, "is for another measurer, with a key of their own", asked.fix
        if kind == "task-eval" and "wider" in unmet:
            # Measured now it would count as the first, and had to be measured again.
            lacks, fix = "waits until the wider version was evaluated", f"quantgov measure {uri} --all --tasks DIR"
        steps.append(Step(kind, name, "lacking" if lacks else "planned", lacks, fix))
    approvals = checks.get("approvals")
    if approvals is not None and approvals.refuses and "wanted" in approvals.numbers:
        # The last, since whoever approves wants to see what was measured.
        steps.append(Step(Approval.KIND, "approvals", "lacking", f"by people: {approvals.reason}", approvals.fix))
    return steps


def _lacking(kind: str, given: Given, uri: str, target: Target | None) -> tuple[str, str]:
    """What a measurement still needs, and the option that gives it."""
    command = f"quantgov measure {uri} --all"
    if kind == "task-eval" and given.tasks is None:
        return "needs tasks", f"{command} --tasks DIR"
    if kind == "calibration" and (given.calibration is None or given.production is None):
        return (
            "needs what the quantizer saw, and a sample of production",
            f"{command} --calibration FILE --production FILE",
        )
    if kind == "benchmark" and target is not None:
        return _elsewhere(target, command)
    return "", ""


def _unmet(decision: Decision) -> dict[str, dict[str, str]]:
    """What the width of a version still needs, by condition; empty where it is wide enough, or waived."""
    asked = next((one for one in decision.checks if one.check == "bit-width" and one.refuses), None)
    return {one["condition"]: one for one in asked.numbers.get("unmet", ())} if asked else {}


def _elsewhere(target: Target, command: str) -> tuple[str, str]:
    """Why minutes of timing on this machine would not count for a target."""
    if target.hardware.fingerprint is None:
        capture = f"quantgov targets capture mine --from {target.name}"
        again = "quantgov log PATH --target mine.yaml --parent ... --name ... --register ..."
        return f"the target {target.name} is a template without a captured machine", f"{capture}; {again}"
    differing = differences(target, this_machine())
    return (
        (f"not on this machine: {'; '.join(differing)}", f"on the target's machine: {command}")
        if differing
        else ("", "")
    )


def _failed(decision: Decision) -> CheckResult | None:
    return next((one for one in decision.checks if one.outcome == "fail"), None)


def _run(step: Step, uri: str, given: Given, moved: Callable[[], None]) -> None:
    def progress(message: str, fraction: float) -> None:
        step.said, step.fraction = message, fraction
        moved()

    step.state, began = "running", time.monotonic()
    progress("fetching the files", 0.0)
    try:
        statement = _MEASURES[step.kind](uri, given, progress)
    except QuantgovError as error:
        step.state, step.said, step.fix = "error", error.what, error.fix or ""
    else:
        step.state, step.said, step.statement = "attached", "", statement.digest
    step.seconds = time.monotonic() - began


def _kernels(uri: str, given: Given, progress: Progress) -> Statement:
    return confirm_kernels(uri, given.target, progress=progress, key=given.key)


def _calibration(uri: str, given: Given, progress: Progress) -> Statement:
    assert given.calibration is not None, "planned only where it is given"
    return assess_calibration(
        uri, given.calibration, given.production, tasks=given.tasks, progress=progress, key=given.key
    )


def _archive(uri: str, given: Given, progress: Progress) -> Statement:
    return archive(uri, given.store, progress=progress, key=given.key)


def _drill(uri: str, given: Given, progress: Progress) -> Statement:
    return drill(uri, given.store, progress=progress, key=given.key)


def _benchmark(uri: str, given: Given, progress: Progress) -> Statement:
    return benchmark(uri, given.target, progress=progress, key=given.key)


def _fidelity(uri: str, given: Given, progress: Progress) -> Statement:
    return measure_fidelity(uri, given.text, progress=progress, key=given.key)


def _task_eval(uri: str, given: Given, progress: Progress) -> Statement:
    assert given.tasks is not None, "planned only where they are given"
    return evaluate(uri, given.tasks, progress=progress, key=given.key)


_MEASURES: Mapping[str, Callable[[str, Given, Progress], Statement]] = {
    "kernels": _kernels,
    "calibration": _calibration,
    "archive": _archive,
    "drill": _drill,
    "benchmark": _benchmark,
    "fidelity": _fidelity,
    "task-eval": _task_eval,
}
