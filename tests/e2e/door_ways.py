"""The ways in which somebody reaches a registry, each with the same few operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import mlflow
from door_servers import ADMIN, WORKSPACE, Server
from mlflow.exceptions import MlflowException


class RefusedError(Exception):
    """The registry did not do what was asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.message = status, message


class Way(ABC):
    """One way; every operation raises `RefusedError` where it was not done."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @abstractmethod
    def create(self, name: str, tags: dict[str, str] | None = None) -> None: ...
    @abstractmethod
    def version(self, name: str, source: str, run_id: str, tags: dict[str, str] | None = None) -> str: ...
    @abstractmethod
    def alias(self, name: str, alias: str, version: str) -> None: ...
    @abstractmethod
    def unalias(self, name: str, alias: str) -> None: ...
    @abstractmethod
    def stage(self, name: str, version: str, stage: str, archive: bool = False) -> None: ...
    @abstractmethod
    def rename(self, name: str, new: str) -> None: ...
    @abstractmethod
    def copy(self, name: str, version: str, to: str) -> str: ...
    @abstractmethod
    def delete_version(self, name: str, version: str) -> None: ...
    @abstractmethod
    def delete(self, name: str) -> None: ...
    @abstractmethod
    def tag(self, name: str, version: str, key: str, value: str) -> None: ...
    @abstractmethod
    def flag(self, name: str, key: str, value: str) -> None: ...
    @abstractmethod
    def prompt_alias(self, name: str, alias: str, version: str) -> None: ...


class Rest(Way):
    """Plain HTTP: MLflow's REST API, or the addresses that its web page asks."""

    api = "/api/2.0/mlflow"

    def _do(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.server.call(method, f"{self.api}/{path}", body)
        if not answer.ok:
            raise RefusedError(answer.status_code, answer.text)
        return dict(answer.json())

    def create(self, name: str, tags: dict[str, str] | None = None) -> None:
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        self._do("POST", "registered-models/create", {"name": name, "tags": pairs})

    def version(self, name: str, source: str, run_id: str, tags: dict[str, str] | None = None) -> str:
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        body = {"name": name, "source": source, "run_id": run_id, "tags": pairs,
                # What MLflow's message does not know; a server that took it would promote by creating.
                "aliases": ["champion"], "current_stage": "Production", "stage": "Production"}  # fmt: skip
        return str(self._do("POST", "model-versions/create", body)["model_version"]["version"])

    def alias(self, name: str, alias: str, version: str) -> None:
        self._do("POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})

    def unalias(self, name: str, alias: str) -> None:
        self._do("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def stage(self, name: str, version: str, stage: str, archive: bool = False) -> None:
        body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": archive}
        self._do("POST", "model-versions/transition-stage", body)

    def rename(self, name: str, new: str) -> None:
        self._do("POST", "registered-models/rename", {"name": name, "new_name": new})

    def copy(self, name: str, version: str, to: str) -> str:
        body = {"name": to, "source": f"models:/{name}/{version}"}
        return str(self._do("POST", "model-versions/create", body)["model_version"]["version"])

    def delete_version(self, name: str, version: str) -> None:
        self._do("DELETE", "model-versions/delete", {"name": name, "version": version})

    def delete(self, name: str) -> None:
        self._do("DELETE", "registered-models/delete", {"name": name})

    def tag(self, name: str, version: str, key: str, value: str) -> None:
        self._do("POST", "model-versions/set-tag", {"name": name, "version": version, "key": key, "value": value})

    def flag(self, name: str, key: str, value: str) -> None:
        self._do("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})

    def prompt_alias(self, name: str, alias: str, version: str) -> None:
        self.alias(name, alias, version)


class Ajax(Rest):
    """What the web page sends."""

    api = "/ajax-api/2.0/mlflow"


class Client(Way):
    """`MlflowClient` against the server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._client = mlflow.MlflowClient(server.url, self._registry())

    def _registry(self) -> str:
        return self.server.url

    def _do(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MlflowException as error:
            raise RefusedError(error.get_http_status_code(), str(error.message)) from error

    def create(self, name: str, tags: dict[str, str] | None = None) -> None:
        self._do(lambda: self._client.create_registered_model(name, tags))

    def version(self, name: str, source: str, run_id: str, tags: dict[str, str] | None = None) -> str:
        return str(
            self._do(
                lambda: self._client.create_model_version(name, source, run_id, tags, await_creation_for=0)
            ).version
        )

    def alias(self, name: str, alias: str, version: str) -> None:
        self._do(lambda: self._client.set_registered_model_alias(name, alias, version))

    def unalias(self, name: str, alias: str) -> None:
        self._do(lambda: self._client.delete_registered_model_alias(name, alias))

    def stage(self, name: str, version: str, stage: str, archive: bool = False) -> None:
        self._do(lambda: self._client.transition_model_version_stage(name, version, stage, archive))

    def rename(self, name: str, new: str) -> None:
        self._do(lambda: self._client.rename_registered_model(name, new))

    def copy(self, name: str, version: str, to: str) -> str:
        return str(self._do(lambda: self._client.copy_model_version(f"models:/{name}/{version}", to)).version)

    def delete_version(self, name: str, version: str) -> None:
        self._do(lambda: self._client.delete_model_version(name, version))

    def delete(self, name: str) -> None:
        self._do(lambda: self._client.delete_registered_model(name))

    def tag(self, name: str, version: str, key: str, value: str) -> None:
        self._do(lambda: self._client.set_model_version_tag(name, version, key, value))

    def flag(self, name: str, key: str, value: str) -> None:
        self._do(lambda: self._client.set_registered_model_tag(name, key, value))

    def prompt_alias(self, name: str, alias: str, version: str) -> None:
        self._do(lambda: self._client.set_prompt_alias(name, alias, int(version)))


class InProcess(Client):
    """`MlflowClient` that opens the registry's database itself, by the address that a gated registry has."""

    def _registry(self) -> str:
        return f"{'quantgov:' if self.server.kind.gated else ''}{self.server.database}"


WAYS: tuple[type[Way], ...] = (Rest, Ajax, Client, InProcess)


def environment(server: Server) -> dict[str, str]:
    """Variables that a client of a server needs."""
    found = {"MLFLOW_TRACKING_URI": server.url, "QUANTGOV_POLICY": str(server.folder / "policy.yaml")}
    if server.kind.login:
        found |= {"MLFLOW_TRACKING_USERNAME": ADMIN[0], "MLFLOW_TRACKING_PASSWORD": ADMIN[1]}
    if server.kind.workspaces:
        found |= {"MLFLOW_WORKSPACE": WORKSPACE, "MLFLOW_ENABLE_WORKSPACES": "true"}
    return found
