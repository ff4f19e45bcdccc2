"""Which versions and models a gated pointer or a rollback rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.flavor.download import search_versions
from mlflow_quantgov.policy.matching import destination_kind
from mlflow_quantgov.policy.schema import Policy


@dataclass(frozen=True)
class Pointer:
    """An alias or stage at which a version stands."""

    version: str
    destination: str
    """`@alias` or a stage."""


class Guards:
    """Questions about pointers, asked of the store that this is mixed into."""

    def gated_pointers(self: Any, policy: Policy, name: str) -> list[str]:
        """Words for every gated pointer inside a registered model."""
        return [f"{held.destination} points to version {held.version}" for held in self.pointers(policy, name)]

    def needed_by(self: Any, policy: Policy, name: str, version: str) -> list[str]:
        """Why a version may not go: a gated pointer stands on it, or rolls back to it."""
        pointers = self.pointers(policy, name)
        reasons = [f"{held.destination} points to it" for held in pointers if held.version == version]
        for held in pointers:
            lineage = self.quantgov_facts(name, held.version).lineage if held.version != version else None
            if lineage is not None and lineage.parent_version == version:
                reasons.append(f"it is what {held.destination} rolls back to")
        return reasons

    def gated_pointers_here(self: Any, policy: Policy) -> list[tuple[str, Pointer]]:
        """Model and pointer, for every gated pointer of the active workspace."""
        found: list[tuple[str, Pointer]] = []
        token = None
        while True:
            page = self.search_registered_models(max_results=1000, page_token=token)
            for model in page:
                found += [(model.name, held) for held in self.pointers(policy, model.name)]
            token = page.token
            if not token:
                return found

    def pointers(self: Any, policy: Policy | None, name: str) -> list[Pointer]:
        """Gated pointers of a registered model by a policy; all of them where None is given."""
        model = self.get_registered_model(name)
        found = [Pointer(str(version), f"@{alias}") for alias, version in dict(model.aliases or {}).items()]
        for version in search_versions(self.search_model_versions, name):
            if version.current_stage and version.current_stage != "None":
                found.append(Pointer(str(version.version), version.current_stage))
        if policy is None:
            return found
        return [held for held in found if destination_kind(policy, name, held.destination) == "gated"]
