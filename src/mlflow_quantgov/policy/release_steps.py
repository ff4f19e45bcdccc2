"""What a gate will ask of a release that does not exist yet, as commands, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.policy.schema import Gate


@dataclass(frozen=True)
class Step:
    """One thing to run, and the checks that it serves."""

    title: str
    checks: tuple[str, ...]
    """Checks of the gate that it gives evidence for; empty for what has to be done anyway."""
    cost: str
    """What it takes, in words."""
    commands: tuple[str, ...]
    """Lines for a shell, as they stand; at most 78 columns where names are short."""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "title": self.title,
            "checks": list(self.checks),
            "cost": self.cost,
            "commands": list(self.commands),
            "note": self.note,
        }


@dataclass(frozen=True)
class Release:
    """Names in the commands of a release."""

    model: str
    """Registered model that will hold it."""
    parent: str
    """Where the full-precision files lie, or `models:/NAME/VERSION` where they are registered."""
    made: str
    """File or folder that is logged."""
    target: str
    """Name or path of the target that is declared."""
    recipe: bool
    """Whether a recipe is run by this package and recorded."""
    calibrates: bool
    served: bool
    """Whether the target's runtime runs in no adapter of this package, so that both sides are asked as endpoints."""
    endpoint: bool
    """Whether the target is an endpoint and nothing else is known of it."""
    destination: str
    bits: float

    @property
    def version(self) -> str:
        """The quantized version; its number is the one that `log` prints."""
        return f"models:/{self.model}/2"


def steps(gate: Gate, release: Release) -> list[Step]:
    """The evidence that a gate demands, cheapest first; logging comes before everything."""
    found = [_log(gate, release)]
    found += [make(gate, release) for check, make in _MAKERS.items() if check in gate.checks]
    found.append(_spot_check(gate, release))
    found = [one for one in found if one.commands or one.note]
    ask = (f"quantgov check {release.version} --to {release.destination}",)
    return [*found, Step("Ask, before anybody promotes", (), "seconds", ask)]


def _log(gate: Gate, release: Release) -> Step:
    served = ("identity", "lineage", "bit-width", "format-fit")
    registered = release.parent.startswith("models:/")
    parent = release.parent if registered else f"models:/{release.model}/1"
    commands = []
    if not registered:
        commands.append(
            f"quantgov log-parent {release.parent} --name parent \\\n"
            f"    --register {release.model} --target {release.target}"
        )
    options = f"--parent {parent} --target {release.target} \\\n    --name quantized --register {release.model}"
    extra = " \\\n    --recipe recipe.yaml" if release.recipe else ""
    extra += " --calibration calib.jsonl" if release.calibrates and release.recipe else ""
    commands.append(f"quantgov log {release.made} \\\n    {options}{extra}")
    note = f"`log` prints the version's number; below it is {release.version}."
    return Step(
        "Log it against its parent", tuple(one for one in served if one in gate.checks), "seconds",
        tuple(commands), note,
    )  # fmt: skip


def _kernels(gate: Gate, release: Release) -> Step:
    note = ""
    if release.served and gate.probe:
        note = (
            "An endpoint does not name its kernels: `probe: true` in the policy says `Not measured`. Waive it, or declare what "
            "really serves."
            if release.endpoint
            else "No adapter of this package loads a model in that runtime, so the table's row stands alone, and a policy with "
            "`probe: true` says `Not measured`. Keep the server's log: it names the kernel. Waive it, or set `probe: false`."
        )
    return Step(
        "See which kernel the runtime takes",
        ("kernel-support",),
        "one load",
        (f"quantgov kernels {release.version}",),
        note,
    )


def _archive(gate: Gate, release: Release) -> Step:
    commands = (f"quantgov archive {release.version} --store ARCHIVE", f"quantgov drill {release.version}")
    note = f"ARCHIVE is a folder or s3:// address that outlives the model. The drill counts for {gate.drill_days} days."
    return Step(
        "Archive the parent, and bring it back once", ("rollback-archive",), "one copy, one load", commands, note
    )


def _calibration(gate: Gate, release: Release) -> Step:
    if not release.calibrates:
        return Step("Calibration data", ("calibration",), "", ())
    command = f"quantgov calibration {release.version} \\\n    --calibration calib.jsonl --production traffic.jsonl --tasks tasks/"
    return Step(
        "Compare calibration data with production", ("calibration",), "one pass of the parent", (command,),
        "Before quantizing, the same command without the version judges the two files.",
    )  # fmt: skip


def _benchmark(gate: Gate, release: Release) -> Step:
    commands = (f"quantgov benchmark {release.version}",)
    note = ""
    if release.served:
        commands = (f"quantgov benchmark {release.version} \\\n    --served parent.yaml quantized.yaml",)
        note = "The two files describe the servers of both sides. Run it on the machine that serves: elsewhere it never passes."
    return Step("Time both on the machine that will serve", ("benchmark",), "minutes", commands, note)


def _bit_width(gate: Gate, release: Release) -> Step:
    """What a width below the policy's least takes, before this version is evaluated; nothing above it."""
    if release.bits >= gate.least_bits:
        return Step("A wider version first", ("bit-width",), "", ())
    budget = gate.budget_for(release.bits)
    allowed = (
        f"the policy allows a loss of {budget:.1%} at {release.bits:g} bit"
        if budget is not None
        else f"the policy has no budget for {release.bits:g} bit and refuses it: ask for one, or stay at {gate.least_bits:g}"
    )
    commands = (
        f"quantgov evaluate models:/{release.model}/WIDER --tasks tasks/",
        f"quantgov log-parent CHECKPOINT --name trained \\\n    --register {release.model}-trained",
        f"quantgov training {release.version} \\\n    --checkpoint models:/{release.model}-trained/1 --run RUN \\\n"
        "    --steps STEPS --data train.jsonl --code COMMIT",
    )
    note = (
        f"Below {gate.least_bits:g} bit bit-width also asks for a version of the same parent at {gate.least_bits:g} bit or more "
        "that was evaluated first (WIDER), and for quantization-aware training: what is quantized is then the registered "
        f"CHECKPOINT, and the parent stays the original. Of quality {allowed}. docs/how-to/release-below-four-bit.md"
    )
    return Step("A wider version first, and the training", ("bit-width",), "a training", commands, note)


def _task_eval(gate: Gate, release: Release) -> Step:
    wanted = ", ".join(f"{name} ({one.min_items} items or more)" for name, one in gate.capabilities.items())
    served = " \\\n    --served parent.yaml quantized.yaml" if release.served else ""
    commands = [
        f"quantgov evaluate {release.version} --tasks tasks/ --plan --pilot 20{served}",
        f"quantgov evaluate {release.version} --tasks tasks/{served}",
    ]
    note = f"Each must be shown not worse: {wanted}." if wanted else ""
    return Step(
        "Run your own tasks on both sides", ("task-eval",), "minutes to hours; --plan says", tuple(commands), note
    )


def _spot_check(gate: Gate, release: Release) -> Step:
    demand = gate.spot_check
    if demand is None or "task-eval" not in gate.checks:
        return Step("A spot-check", ("task-eval",), "", ())
    command = f"quantgov spot-check {release.version} --items {demand.items} --tasks tasks/ \\\n    --key OTHER.key.pem"
    note = "By somebody else than who evaluated, with the parent in the archive; an evaluation of endpoints cannot be checked."
    return Step(
        "Have a part of it measured again", ("task-eval",), f"{demand.items} items on both sides", (command,), note
    )


def _approvals(gate: Gate, release: Release) -> Step:
    demand = gate.approvals
    if demand is None:
        return Step("Approvals", ("approvals",), "", ())
    command = f"quantgov approve {release.version} --to {release.destination}"
    several = f"{demand.count} people" if demand.count > 1 else "One person"
    barred = ["asks for it", *({"measurer": "measured", "logger": "logged it"}[one] for one in demand.not_by)]
    how = (
        f"with a key that has the role {demand.role}" if demand.signed else f"signed in, or with a key ({demand.role})"
    )
    note = f"{several}, {how}; not whoever {' or '.join(barred)}."
    note += f" Each counts for {demand.within_days} days." if demand.within_days else ""
    return Step(
        "Have it approved", ("approvals",), "people",
        (f"{command} \\\n    --key NAME.key.pem" if demand.signed else command,), note,
    )  # fmt: skip


_MAKERS = {
    "kernel-support": _kernels,
    "rollback-archive": _archive,
    "calibration": _calibration,
    "benchmark": _benchmark,
    "bit-width": _bit_width,
    "task-eval": _task_eval,
    "approvals": _approvals,
}
"""Check to what gives evidence for it, in the order of what it costs."""
