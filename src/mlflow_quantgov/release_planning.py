"""Before anything is quantized: from the deployment backward to formats and recipes, and the evidence to come."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quantization import Structure
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.artifact.quantizers.suggestions import SUGGESTIONS, Suggestion
from mlflow_quantgov.artifact.runtimes.registry import runtime_names
from mlflow_quantgov.errors import PolicyError, UsageError, no_such_file
from mlflow_quantgov.evidence.kernel_table import SEVERITY, load_tables, lookup
from mlflow_quantgov.evidence.predicates.kernels import Lookup
from mlflow_quantgov.evidence.targets import Target, find_target, list_targets
from mlflow_quantgov.policy.loader import load_policy
from mlflow_quantgov.policy.matching import gate_for, gated_destinations
from mlflow_quantgov.policy.release_steps import Release, Step, steps
from mlflow_quantgov.policy.schema import Gate, Policy

PRINCIPLE = (
    "Weights with an optimized kernel come first; among them the fewest bits that the policy takes without special training, "
    "because that is where to start measuring: go down the list where the evaluation loses."
)
_MODEL = "my-model"


@dataclass(frozen=True)
class Option:
    """One way to quantize, seen from the target."""

    suggestion: Suggestion
    kernel: Lookup
    """What the kernel table says of it there."""
    bits_per_weight: float
    """Of the whole model where the parent is known, else of the quantized matrices alone."""
    size_bytes: int | None
    """About; None without a parent."""
    fits: bool
    """Whether the target names its container."""
    trained: bool
    """Whether it is so narrow that the policy wants recorded quantization-aware training."""
    recipe: dict[str, Any] | None
    """For `quantgov quantize --recipe`; None where another tool makes it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        one = self.suggestion
        return {
            "name": one.name,
            "format": one.format,
            "bits": one.bits,
            "group_size": one.group_size,
            "symmetric": one.symmetric,
            "desc_act": one.desc_act,
            "activation_bits": one.activation_bits,
            "bits_per_weight": round(self.bits_per_weight, 3),
            "size_bytes": self.size_bytes,
            "published_kl": one.published_kl,
            "kernel": self.kernel.model_dump(mode="json"),
            "format_fits": self.fits,
            "needs_training": self.trained,
            "calibrates": one.calibrates,
            "quantizer": one.quantizer,
            "made_by": one.quantizer or one.elsewhere,
            "recipe": self.recipe,
        }


@dataclass(frozen=True)
class ReleasePlan:
    """What a target serves well, and what a release to it will have to show."""

    target: Target
    table_version: str | None
    """Release of the runtime in which its kernel table was read."""
    policy: str
    destination: str
    parent_parameters: int | None
    parent_bytes: int | None
    best: tuple[Option, ...]
    """Optimized, best first; narrow ones that need training last."""
    open: tuple[Option, ...]
    """The container fits, and nobody knows, or the target does not say enough."""
    avoid: tuple[Option, ...]
    """Slow, emulated, expanded or not loaded."""
    chosen: Option | None
    """The one that the steps are about."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "target": self.target.model_dump(mode="json", by_alias=True),
            "target_digest": self.target.digest,
            "kernel_table": self.table_version,
            "policy": self.policy,
            "destination": self.destination,
            "principle": PRINCIPLE,
            "parent": None
            if self.parent_parameters is None
            else {"parameters": self.parent_parameters, "size_bytes": self.parent_bytes},
            "best": [one.to_dict() for one in self.best],
            "open": [one.to_dict() for one in self.open],
            "avoid": [one.to_dict() for one in self.avoid],
            "chosen": self.chosen.suggestion.name if self.chosen else None,
            "steps": [one.to_dict() for one in self.steps],
            "notes": list(self.notes),
        }


def plan_release(
    target: str | Path | Target,
    parent: str | Path | None = None,
    *,
    choose: int = 1,
    to: str | None = None,
) -> ReleasePlan:
    """Choose a format from the deployment backward, before anything is quantized. Nothing is run and nothing is attached.

    Args:
        target: Name or path of a target.
        parent: The full-precision model, `models:/NAME/VERSION`, a folder or a file: gives sizes, and shapes for kernels that
            take some alone.
        choose: Which of the ranked ways the commands are for; 1 is the best.
        to: Destination whose gate is planned for; None for the first that demands most.

    Raises:
        UsageError: No target of that name, no such file, or no option of that number.
        ArtifactError: The parent cannot be read.
        PolicyError: The policy gates no such destination.
    """
    declared = target if isinstance(target, Target) else find_target(target)
    name, structure, parameters, size = _parent(parent)
    policy = _policy(parent)
    destination, gate = _gate(policy, name, to)
    found = [_option(one, declared, gate, structure) for one in SUGGESTIONS]
    best = tuple(sorted((one for one in found if one.fits and one.kernel.support == "optimized"), key=_rank(declared)))
    undecided = tuple(
        sorted((one for one in found if one.fits and one.kernel.support == "unknown"), key=_rank(declared))
    )
    avoid = tuple(one for one in found if one not in best and one not in undecided)
    ranked = best or undecided
    if not 1 <= choose <= max(1, len(ranked)):
        raise UsageError(
            f"There is no option {choose}.",
            why=f"{declared.name} has {len(ranked)} to choose from.",
            fix=f"quantgov plan --target {declared.name} --choose 1",
        )
    # What somebody else's server runs was quantized elsewhere: there is nothing to choose.
    served = declared.hardware.device == "endpoint"
    chosen = ranked[choose - 1] if ranked and not served else None
    table = load_tables().get(declared.runtime)
    return ReleasePlan(
        target=declared,
        table_version=table.version if table else None,
        policy=policy.name,
        destination=destination,
        parent_parameters=parameters,
        parent_bytes=size,
        best=best,
        open=undecided,
        avoid=avoid,
        chosen=chosen,
        steps=tuple(_steps(chosen, declared, gate, destination, name, parent)) if chosen or served else (),
        notes=_notes(gate, declared, best, undecided, table.notes if table and declared.runtime == "openai" else ()),
    )


def _parent(parent: str | Path | None) -> tuple[str, Structure | None, int | None, int | None]:
    """Name of the registered model, structure, parameters and bytes."""
    if parent is None:
        return _MODEL, None, None, None
    if str(parent).startswith("models:/"):
        from mlflow_quantgov.flavor.download import local_model
        from mlflow_quantgov.versions import registered

        model = local_model(str(parent))
        name, path = registered(model)[0], model.artifact
    else:
        name, path = _MODEL, Path(parent)
        if not path.exists():
            raise no_such_file(path, "Without it no size can be said.")
    found = inspect_model(path)
    return name, found.structure, found.quantization.total_parameters, found.quantization.size_bytes


def _policy(parent: str | Path | None) -> Policy:
    """The gate's policy where a server is named, else the default: planning needs no server."""
    if os.environ.get("MLFLOW_TRACKING_URI") or str(parent or "").startswith("models:/"):
        from mlflow_quantgov.api.evaluating import policy_in_force

        return policy_in_force()
    return load_policy()


def _gate(policy: Policy, name: str, to: str | None) -> tuple[str, Gate]:
    """The gate to plan for: the one that was asked for, else the one with most checks."""
    gated = gated_destinations(policy, name)
    if to is not None:
        gated = [one for one in gated if one == to]
    gates = [(one, gate) for one in gated if (gate := gate_for(policy, name, one)) is not None]
    if not gates:
        raise PolicyError(
            f"The policy {policy.name} gates {'nothing' if to is None else to} for {name}.",
            why="Then no evidence is asked for.",
            fix=f"use one of {', '.join(gated_destinations(policy, name)) or 'the destinations that it gates'} with --to",
        )
    return max(gates, key=lambda one: len(one[1].checks))


def _option(one: Suggestion, target: Target, gate: Gate, parent: Structure | None) -> Option:
    bits, size = one.size(parent) if parent and parent.tensors else (one.stored_bits, None)
    return Option(
        suggestion=one,
        kernel=lookup(one.quantization(parent), target),
        bits_per_weight=bits,
        size_bytes=size,
        fits=one.format in target.formats,
        trained=one.bits < gate.least_bits,
        recipe=_recipe(one),
    )


def _recipe(one: Suggestion) -> dict[str, Any] | None:
    """What `quantgov quantize` takes; the installed version, or a reminder to name one."""
    if one.quantizer is None:
        return None
    return {"quantizer": one.quantizer, "version": _version(one.quantizer), "arguments": dict(one.arguments)}


@cache
def _version(quantizer: str) -> str | None:
    """The installed one, looked up once: a plan asks for it with every way to quantize."""
    try:
        return metadata.version(find_quantizer(quantizer).distribution)
    except metadata.PackageNotFoundError:
        return None


def _rank(target: Target) -> Any:
    """See `PRINCIPLE`; what a target names first goes first among equals."""

    def key(one: Option) -> tuple[Any, ...]:
        made = one.suggestion
        return (one.trained, SEVERITY[one.kernel.support], made.bits if not one.trained else -made.bits,
                target.formats.index(made.format))  # fmt: skip

    return key


def _steps(
    chosen: Option | None, target: Target, gate: Gate, destination: str, name: str, parent: str | Path | None
) -> list[Step]:
    source = str(parent) if parent is not None else "PARENT"
    captured = target.hardware.fingerprint is not None or target.hardware.device == "endpoint"
    recipe = chosen.recipe if chosen else None
    made = "MADE"
    if chosen and recipe:
        made = f"made/model-{chosen.suggestion.name}.gguf" if chosen.suggestion.format == "gguf" else "made"
    release = Release(
        model=name,
        parent=source,
        made=made,
        target=target.name if captured else "mine.yaml",
        recipe=recipe is not None,
        calibrates=chosen.suggestion.calibrates if chosen else True,
        served=target.runtime not in runtime_names() or target.hardware.device == "endpoint",
        endpoint=target.hardware.device == "endpoint",
        destination=destination,
        bits=chosen.suggestion.bits if chosen else gate.least_bits,
    )
    before = []
    if not captured:
        capture = f"quantgov targets capture mine --from {target.name}"
        note = f"{target.name} is a template: speed counts on a captured machine alone."
        before.append(Step("Declare the machine that will serve", (), "seconds, on that machine", (capture,), note))
    return [*before, _make(chosen, source), *steps(gate, release)]


def _make(chosen: Option | None, parent: str) -> Step:
    """How to make the files."""
    if chosen is None or chosen.recipe is None:
        where = f"Another tool makes it: {chosen.suggestion.elsewhere}. " if chosen else ""
        return Step("Quantize", (), "", (), f"{where}MADE stands for its file or folder.")
    made = chosen.suggestion
    content = {**chosen.recipe, "version": chosen.recipe["version"] or "THE INSTALLED VERSION"}
    lines = ["cat > recipe.yaml <<END", _yaml(content)]
    if made.calibrates:
        lines.append("calibration: sha256:$(sha256sum calib.jsonl | cut -d' ' -f1)")
    lines.append("END")
    option = " \\\n    --calibration calib.jsonl" if made.calibrates else ""
    folder = parent if not parent.startswith("models:/") else "PARENT"
    run = f"quantgov quantize {folder} made --recipe recipe.yaml{option}"
    install = ""
    if chosen.recipe["version"] is None:
        install = f"pip install {find_quantizer(str(made.quantizer)).distribution}"
    commands = tuple(filter(None, (install, "\n".join(lines), run)))
    note = 'calib.jsonl: a few hundred texts like production\'s, one {"text": ...} a line.' if made.calibrates else ""
    return Step("Quantize by a recipe that can be run again", (), "minutes to hours", commands, note)


def _yaml(recipe: dict[str, Any]) -> str:
    """A recipe as people write it: arguments on one line where they fit."""
    import yaml

    flow = yaml.safe_dump(recipe["arguments"], default_flow_style=True, sort_keys=False, width=10_000).strip()
    if len(flow) < 60:
        return f'quantizer: {recipe["quantizer"]}\nversion: "{recipe["version"]}"\narguments: {flow}'
    return str(yaml.safe_dump(recipe, sort_keys=False, default_flow_style=False)).strip()


def _better(target: Target, gate: Gate) -> list[str]:
    """Targets of the same hardware on which something quantized has an optimized kernel."""
    found = []
    for other in list_targets():
        if (
            other.hardware.device == target.hardware.device
            and other.hardware.architecture == target.hardware.architecture
        ):
            options = [_option(one, other, gate, None) for one in SUGGESTIONS]
            if any(one.fits and not one.trained and one.kernel.support == "optimized" for one in options):
                found.append(other.name)
    return found


def _notes(
    gate: Gate, target: Target, best: tuple[Option, ...], undecided: tuple[Option, ...], said: tuple[str, ...]
) -> tuple[str, ...]:
    notes = list(said)
    if target.hardware.device == "endpoint":
        return tuple(notes)
    if not any(not one.trained for one in best):
        fix = "Serve the parent as it is, or choose another target."
        measured = " Of those listed nobody knows: measure." if undecided else ""
        notes.append(f"Nothing quantized has a kernel there that is known to be good.{measured} {fix}".strip())
        others = _better(target, gate)
        if others:
            notes.append(f"On the same hardware: {', '.join(f'quantgov plan --target {one}' for one in others)}")
    unsettled = {name for one in undecided for name in one.kernel.depends_on}
    if "cpu_flags" in unsettled:
        notes.append(f"Some depend on the CPU's instruction sets: quantgov targets capture mine --from {target.name}")
    if "compute_capability" in unsettled:
        notes.append("Some depend on the GPU: state hardware.compute_capability in a copy of the target.")
    return tuple(notes)


def families(options: tuple[Option, ...]) -> list[tuple[Lookup, list[Option]]]:
    """Options for which the same rows say the same, together, the mildest answer first."""
    found: dict[tuple[str, str], list[Option]] = {}
    for one in options:
        found.setdefault((one.kernel.support, one.kernel.row), []).append(one)
    ordered = sorted(found.values(), key=lambda group: SEVERITY[group[0].kernel.support])
    return [(group[0].kernel, group) for group in ordered]
