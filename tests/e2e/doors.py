"""The doors of a registry: how somebody who knows MLflow brings a version to users without any evidence.

Each goes through on plain MLflow, and through none of them goes anything on a gated server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
from door_servers import Server
from door_ways import Way
from packaging.version import Version


@dataclass(frozen=True)
class Door:
    """One door.

    Attributes:
        key: Its name, in `docs/security.md` too.
        knock: Goes through, or raises `RefusedError`.
        status: Statuses that the refusal may have; MLflow's client makes its own of some.
        closed_by_mlflow: First version of MLflow that closes it by itself.
    """

    key: str
    knock: Callable[[Way, Server], None]
    status: tuple[int, ...] = (403,)
    closed_by_mlflow: str | None = None

    @property
    def is_open_on_plain_mlflow(self) -> bool:
        """Whether the installed MLflow leaves it open."""
        return self.closed_by_mlflow is None or Version(mlflow.__version__) < Version(self.closed_by_mlflow)


def unmeasured(way: Way, server: Server, name: str = "chat", tags: dict[str, str] | None = None) -> str:
    """A new registered model whose version 1 is a language model that nobody measured."""
    made = f"{name}-{uuid.uuid4().hex[:8]}"
    way.create(made, tags)
    way.version(made, server.source, server.run_id, tags)
    return made


def serving(way: Way, server: Server) -> str:
    """A new registered model whose version 1, no language model, stands at `@champion` by decision."""
    made = f"iris-{uuid.uuid4().hex[:8]}"
    way.create(made)
    way.version(made, server.small, server.small_run_id)
    way.alias(made, "champion", "1")
    return made


def _alias(alias: str) -> Callable[[Way, Server], None]:
    return lambda way, server: way.alias(unmeasured(way, server), alias, "1")


def _stage(stage: str, archive: bool = False) -> Callable[[Way, Server], None]:
    return lambda way, server: way.stage(unmeasured(way, server), "1", stage, archive)


def _forged_tags(way: Way, server: Server) -> None:
    name = unmeasured(way, server, tags={"quantgov.decision": "allowed", "quantgov.role": "parent"})
    way.tag(name, "1", "quantgov.task-eval", "pass")
    way.tag(name, "1", "validation_status", "approved")
    way.alias(name, "champion", "1")


def _prompt_flag(way: Way, server: Server) -> None:
    """A model that is made to pass for a prompt once its files are registered; while it is made, MLflow looks."""
    name = unmeasured(way, server)
    way.tag(name, "1", "mlflow.prompt.is_prompt", "true")
    way.tag(name, "1", "mlflow.prompt.text", "What is {{ this }}?")
    way.flag(name, "mlflow.prompt.is_prompt", "true")
    way.prompt_alias(name, "champion", "1")


def _protected(way: Way) -> str:
    name = f"protected-{uuid.uuid4().hex[:8]}"
    way.create(name)
    return name


def _created_where_creating_promotes(way: Way, server: Server) -> None:
    way.version(_protected(way), server.source, server.run_id)


def _copied_where_creating_promotes(way: Way, server: Server) -> None:
    way.copy(unmeasured(way, server), "1", _protected(way))


def _renamed(new: str) -> Callable[[Way, Server], None]:
    def knock(way: Way, server: Server) -> None:
        name = unmeasured(way, server, "sandbox")
        way.alias(name, "champion", "1")
        way.rename(name, f"{new}-{uuid.uuid4().hex[:8]}")

    return knock


def _renamed_stage(way: Way, server: Server) -> None:
    name = unmeasured(way, server, "sandbox")
    way.stage(name, "1", "Production")
    way.rename(name, f"chat-{uuid.uuid4().hex[:8]}")


def _needed_version_deleted(way: Way, server: Server) -> None:
    way.delete_version(serving(way, server), "1")


def _needed_model_deleted(way: Way, server: Server) -> None:
    way.delete(serving(way, server))


def _number_reused(way: Way, server: Server) -> None:
    """Version 1 was approved; then the model is made anew, and its version 1 is another."""
    name = serving(way, server)
    way.unalias(name, "champion")
    way.delete(name)
    way.create(name)
    way.version(name, server.source, server.run_id)
    way.alias(name, "champion", "1")


def _named(name: str) -> Callable[[Way, Server], None]:
    return lambda way, server: way.create(f"{name}-{uuid.uuid4().hex[:8]}")


DOORS = (
    Door("alias", _alias("champion")),
    Door("alias in other case", _alias("ChAmPiOn")),
    Door("alias in another Unicode form", _alias("ｃhampion")),
    Door("alias with a line end", _alias("champion\n"), status=(400,), closed_by_mlflow="3.18"),
    Door("alias that nobody named", _alias("blessed")),
    Door("alias that looks alike", _alias("chаmpıon")),
    Door("stage", _stage("Production")),
    Door("stage in other case", _stage("pRODUCTION")),
    Door("stage, archiving what stands there", _stage("Staging", archive=True)),
    Door("forged tags", _forged_tags),
    Door("prompt flag", _prompt_flag),
    Door("creation in a protected name", _created_where_creating_promotes),
    Door("copy into a protected name", _copied_where_creating_promotes, status=(403, 500)),
    Door("rename with an alias", _renamed("chat")),
    Door("rename with a stage", _renamed_stage),
    Door("rename into a protected name", _renamed("protected")),
    Door("deletion of a version that serves", _needed_version_deleted),
    Door("deletion of a model that serves", _needed_model_deleted),
    Door("number of an earlier version", _number_reused),
    Door("model name that looks alike", _named("рrotected")),
    Door("model name with unseen signs", _named("pro\u200btected"), status=(400,)),
    Door("model name that reads backwards", _named("\u202edetcetorp"), status=(400,)),
)
