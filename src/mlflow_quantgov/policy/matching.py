"""Which rule and which gate apply; names that differ in case or Unicode form are one name."""

from __future__ import annotations

import fnmatch
import unicodedata
from typing import Literal

from mlflow_quantgov.policy.schema import Gate, Policy, Rule


def fold(name: str) -> str:
    """The form in which names are compared: NFKC, casefolded, outer spaces dropped."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def rule_for(policy: Policy, model: str) -> Rule | None:
    """The first rule whose glob matches the model's name."""
    name = fold(model)
    return next((rule for rule in policy.rules if fnmatch.fnmatchcase(name, fold(rule.models))), None)


def gate_name(policy: Policy, model: str, destination: str) -> str:
    """Name of the gate in front of a destination, `open` or `refuse`; what nobody named is refused."""
    rule = rule_for(policy, model)
    if rule is None:
        return "refuse"
    wanted = fold(destination)
    for name, gate in rule.destinations.items():
        if fold(name) == wanted:
            return gate
    return "open" if rule.other_destinations == "open" else "refuse"


def gate_for(policy: Policy, model: str, destination: str) -> Gate | None:
    """The gate in front of a destination; None where it is open or refused."""
    return policy.gates.get(gate_name(policy, model, destination))


def destination_kind(policy: Policy, model: str, destination: str) -> Literal["open", "gated", "refused"]:
    """Whether a destination is open, gated, or refused to everybody."""
    name = gate_name(policy, model, destination)
    if name == "open":
        return "open"
    return "refused" if name == "refuse" else "gated"


def creation_gated(policy: Policy, model: str) -> bool:
    """Whether creating a version in a model is itself a promotion."""
    rule = rule_for(policy, model)
    return rule is not None and rule.create == "gated"


def gated_destinations(policy: Policy, model: str) -> list[str]:
    """Destinations of a model that have a gate, in the order of the policy."""
    rule = rule_for(policy, model)
    return [] if rule is None else [name for name, gate in rule.destinations.items() if gate in policy.gates]


def demands_weights(policy: Policy, model: str) -> bool:
    """Whether any gate of a model wants its weights compared with its parent's, which takes reading both whole."""
    gates = [gate_for(policy, model, destination) for destination in gated_destinations(policy, model)]
    return any(gate is not None and gate.lineage_level in {"numeric", "reproduced"} for gate in gates)


def demanded_bits(policy: Policy, model: str) -> float:
    """Width below which some gate of a model wants to know how it was trained; 0 where none does."""
    gates = [gate_for(policy, model, destination) for destination in gated_destinations(policy, model)]
    return max((gate.least_bits for gate in gates if gate is not None and "bit-width" in gate.checks), default=0.0)


def observes(policy: Policy, model: str) -> bool:
    """Whether nothing is refused for a model: what would be is recorded."""
    rule = rule_for(policy, model)
    return (rule.mode if rule is not None and rule.mode is not None else policy.mode) == "observe"


def excludes_loggers(policy: Policy, model: str) -> bool:
    """Whether some gate of a model wants to know who logged a version."""
    gates = [gate_for(policy, model, destination) for destination in gated_destinations(policy, model)]
    return any(gate is not None and gate.approvals is not None and "logger" in gate.approvals.not_by for gate in gates)
