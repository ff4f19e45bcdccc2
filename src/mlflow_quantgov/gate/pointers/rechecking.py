"""What every protected pointer stands on, and what would be refused today: asked of the store that this is mixed into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlflow_quantgov.errors import UsageError, pasted
from mlflow_quantgov.gate.database import workspaces
from mlflow_quantgov.gate.pointers.believing import standing
from mlflow_quantgov.gate.pointers.listing import Stood, all_pointers
from mlflow_quantgov.policy.matching import destination_kind


class Rechecking:
    """Says how versions came to where they stand, and judges them again; nothing is recorded or moved."""

    def quantgov_stands(self: Any, name: str) -> list[Stood]:
        """Every alias and stage of a registered model at which a version stands, protected or not."""
        with self._sessions() as session:
            return list(all_pointers(session, workspaces.current(), name))

    def quantgov_pointers(self: Any, model: str | None = None) -> list[dict[str, Any]]:
        """How every version at a protected alias or stage came there; no file is read.

        Args:
            model: Registered model; None for all of them.
        """
        if model is not None:
            self.get_registered_model(model)  # 404 where there is none
        with self._sessions() as session:
            held = [one for one in all_pointers(session, workspaces.current(), model) if self._is_protected(one)]
            found = [standing(session, self._policy, one)[0].to_dict() for one in held]
        return sorted(found, key=lambda one: (one["model"], one["destination"], int(one["version"])))

    def quantgov_standing(self: Any, name: str, version: str, destination: str) -> dict[str, Any]:
        """How one version came to where it stands.

        Raises:
            UsageError: It does not stand there.
        """
        self.get_registered_model(name)  # 404 where there is none
        with self._sessions() as session:
            held = [one for one in all_pointers(session, workspaces.current(), name) if one.version == version]
            there = [one for one in held if one.is_at(destination)]
            # As it is spelled, where several are the same name to us.
            for one in sorted(there, key=lambda one: one.destination != destination):
                return standing(session, self._policy, one)[0].to_dict()
        raise UsageError(
            f"{name} version {version} does not stand at {destination}.",
            why="Only what stands there can be looked at again.",
            fix=f"quantgov recheck {pasted(name)}",
        )

    def quantgov_recheck(self: Any, name: str, version: str, destination: str) -> dict[str, Any]:
        """How one version came to where it stands, what would be decided today, and whether its files are those of then.

        Whoever moved it there is taken for the one who asks: whoever merely looks bars nobody's approval.

        Raises:
            UsageError: It does not stand there.
        """
        found = self.quantgov_standing(name, version, destination)
        facts = replace(self.quantgov_facts(name, version), requester=found["by"], requester_verified=None)
        decision = self.quantgov_decide(facts, destination)
        held = facts.model.manifest if facts.model is not None else None
        expected = [one for one in (found["manifest"], facts.recorded_manifest) if one]
        altered = held is not None and any(one != held for one in expected)
        return {"standing": found, "decision": decision.to_dict(), "altered": altered or found["how"] == "re-pointed"}

    def _is_protected(self: Any, stood: Stood) -> bool:
        return stood.created is not None and destination_kind(self._policy, stood.model, stood.destination) != "open"
