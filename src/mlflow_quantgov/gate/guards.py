"""Which versions and models a gated pointer or a rollback rests on."""

from __future__ import annotations

from typing import Any

from mlflow_quantgov.policy.matching import destination_kind
from mlflow_quantgov.policy.schema import Policy


class Guards:
    """Questions about pointers, asked of the store that this is mixed into."""

    def gated_pointers(self: Any, policy: Policy, name: str) -> list[str]:
        """Words for every gated pointer inside a registered model."""
        return [f"{destination} points to version {version}" for version, destination in self._pointers(policy, name)]

    def needed_by(self: Any, policy: Policy, name: str, version: str) -> list[str]:
        """Why a version may not go: a gated pointer stands on it, or rolls back to it."""
        pointers = self._pointers(policy, name)
        reasons = [f"{destination} points to it" for held, destination in pointers if held == version]
        for held, destination in pointers:
            lineage = self.quantgov_facts(name, held).lineage if held != version else None
            if lineage is not None and lineage.parent_version == version:
                reasons.append(f"it is what {destination} rolls back to")
        return reasons

    def all_gated_pointers(self: Any, policy: Policy) -> list[tuple[str, str, str]]:
        """Model, version and destination of every gated pointer of the registry."""
        found, token = [], None
        while True:
            page = self.search_registered_models(max_results=1000, page_token=token)
            for model in page:
                found += [
                    (model.name, version, destination) for version, destination in self._pointers(policy, model.name)
                ]
            token = page.token
            if not token:
                return found

    def _pointers(self: Any, policy: Policy, name: str) -> list[tuple[str, str]]:
        model = self.get_registered_model(name)
        found = [(str(version), f"@{alias}") for alias, version in dict(model.aliases or {}).items()]
        query = "name = '{}'".format(name.replace("'", "''"))
        for version in self.search_model_versions(query, max_results=10_000):
            if version.current_stage and version.current_stage != "None":
                found.append((str(version.version), version.current_stage))
        return [(version, where) for version, where in found if destination_kind(policy, name, where) == "gated"]
