"""Which rule and which gate apply; names that differ in case or Unicode form are one name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Literal

from mlflow_quantgov.policy.names import fold, skeleton
from mlflow_quantgov.policy.schema import Gate, Policy, Rule


def rule_for(policy: Policy, model: str) -> Rule | None:
    """The first rule whose glob matches the model's name."""
    name = fold(model)
    return next((rule for rule in policy.rules if fnmatch.fnmatchcase(name, fold(rule.models))), None)


def looks_like_another(policy: Policy, model: str) -> str | None:
    """The glob of the rule whose models a name only looks like; None where the name is what it looks like, or that rule observes.

    A look-alike of a protected name would stand under the rule for all other names.
    """
    plain = rule_for(policy, model)
    seen = next((rule for rule in policy.rules if fnmatch.fnmatchcase(skeleton(model), skeleton(rule.models))), None)
    return None if seen is plain or seen is None or rule_observes(policy, seen) else seen.models


def looks_like_gated(policy: Policy, model: str, destination: str) -> str | None:
    """The gated destination that an open one only looks like; None where it is what it looks like."""
    rule = rule_for(policy, model)
    if rule is None or destination_kind(policy, model, destination) != "open":
        return None
    seen = _spelled(destination, skeleton)
    closed = [name for name, gate in rule.destinations.items() if gate != "open"]
    return next((name for name in closed if _spelled(name, skeleton) == seen), None)


def _spelled(destination: str, form: Callable[[str], str]) -> str:
    """A destination in a form for comparing; the sign of an alias is no part of its name."""
    return f"@{form(destination[1:])}" if destination.startswith("@") else form(destination)


def gate_name(policy: Policy, model: str, destination: str) -> str:
    """Name of the gate in front of a destination, `open` or `refuse`; what nobody named is refused."""
    rule = rule_for(policy, model)
    if rule is None:
        return "refuse"
    wanted = _spelled(destination, fold)
    for name, gate in rule.destinations.items():
        if _spelled(name, fold) == wanted:
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
    return rule_observes(policy, rule_for(policy, model))


def rule_observes(policy: Policy, rule: Rule | None) -> bool:
    """Whether nothing is refused for the models of a rule, or for those that no rule matches (None)."""
    return (rule.mode if rule is not None and rule.mode is not None else policy.mode) == "observe"


def refuses_nothing(policy: Policy) -> bool:
    """Whether nothing is refused for any model."""
    return all(rule_observes(policy, rule) for rule in (*policy.rules, None))


def observing(policy: Policy) -> list[str]:
    """Globs of the rules that only observe, where others enforce."""
    return [] if refuses_nothing(policy) else [one.models for one in policy.rules if rule_observes(policy, one)]


def excludes_loggers(policy: Policy, model: str) -> bool:
    """Whether some gate of a model wants to know who logged a version."""
    gates = [gate_for(policy, model, destination) for destination in gated_destinations(policy, model)]
    return any(gate is not None and gate.approvals is not None and "logger" in gate.approvals.not_by for gate in gates)
