"""Whether the gate stands in this MLflow: its version, its store's methods, and what we hold on to inside it."""

from __future__ import annotations

import inspect
import os

import mlflow
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from packaging.specifiers import SpecifierSet

from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.gate.doors.methods import DOORS, unjudged

SUPPORTED = SpecifierSet(">=3.17,<4", prereleases=True)
TESTED = ("3.17.0", "3.18.0")
"""The lowest and the newest version that the tests run on."""

_PARAMETERS = {
    "set_registered_model_alias": ("name", "alias", "version"),
    "transition_model_version_stage": ("name", "version", "stage", "archive_existing_versions"),
    "create_model_version": ("name", "source"),
    "copy_model_version": ("src_mv", "dst_name"),
    "delete_registered_model_alias": ("name", "alias"),
    "delete_model_version": ("name", "version"),
    "delete_registered_model": ("name",),
    "rename_registered_model": ("name", "new_name"),
    "create_registered_model": ("name",),
}
"""How the methods that we stand in front of are called."""

_ENDS_IN = {
    "copy_model_version": "create_model_version",
    "create_prompt": "create_registered_model",
    "create_prompt_version": "create_model_version",
    "set_prompt_alias": "set_registered_model_alias",
    "delete_prompt": "delete_registered_model",
    "delete_prompt_version": "delete_model_version",
    "delete_prompt_alias": "delete_registered_model_alias",
}
"""Methods that we leave alone, because they call one that we stand in front of."""

_FIX = f"pip install 'mlflow=={TESTED[-1]}'"


class UnsupportedMlflowError(QuantgovError):
    """This MLflow is one in which the gate could be walked around."""


def check_mlflow(
    stores: tuple[type, ...] = (SqlAlchemyStore, WorkspaceAwareSqlAlchemyStore), version: str | None = None
) -> None:
    """Make sure that the installed MLflow is one in which every door of the registry was judged.

    Args:
        stores: Classes of MLflow's registry store.
        version: MLflow's version; None for the installed one's.

    Raises:
        UnsupportedMlflowError: It is not, and why.
    """
    version = version or mlflow.__version__
    if not SUPPORTED.contains(version):
        raise UnsupportedMlflowError(
            f"MLflow {version} is not supported: the gate stands in MLflow {SUPPORTED}.",
            why="In another version a promotion could take a way that the gate does not know.",
            fix=_FIX,
        )
    for store in stores:
        _check_store(store, version)


def _check_store(store: type, version: str) -> None:
    found = unjudged(store)
    if found:
        raise UnsupportedMlflowError(
            f"The registry of MLflow {version} has a method that nobody has judged: {', '.join(found)}.",
            why="It could promote a version past the gate.",
            fix=_FIX,
        )
    gone = [name for name in DOORS if not callable(getattr(store, name, None))]
    changed = [name for name, wanted in _PARAMETERS.items() if name not in gone and not _takes(store, name, wanted)]
    rerouted = [name for name, end in _ENDS_IN.items() if name not in gone and not _calls(store, name, end)]
    if gone or changed or rerouted:
        raise UnsupportedMlflowError(
            f"The registry of MLflow {version} has changed where the gate stands: "
            f"{', '.join(gone + changed + rerouted)}.",
            why="The gate would stand in front of nothing.",
            fix=_FIX,
        )


def check_instance(store: object) -> None:
    """Make sure that an opened store has what the gate wraps.

    Raises:
        UnsupportedMlflowError: It has not.
    """
    gone = [
        name
        for name in ("ManagedSessionMaker", "engine", "_get_sql_model_version")
        if getattr(store, name, None) is None
    ]
    if gone:
        raise UnsupportedMlflowError(
            f"The registry store of MLflow {mlflow.__version__} has no {', '.join(gone)}.",
            why="A decision and the change that it allows could not be committed together.",
            fix=_FIX,
        )


def check_server_settings() -> None:
    """Make sure that clients cannot run code of theirs on the server, beside the database.

    Raises:
        UnsupportedMlflowError: A setting of MLflow lets them.
    """
    for name, deed in (
        ("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "run code that a client registered as a scorer"),
        ("MLFLOW_ENABLE_REMOTE_ASSISTANT", "let the assistant run commands for people elsewhere"),
    ):
        if os.environ.get(name, "").strip().lower() in {"1", "true"}:
            raise UnsupportedMlflowError(
                f"{name} is set: the server would {deed}.",
                why="Such code reaches the database without passing the gate.",
                fix=f"unset {name}",
            )


def _takes(store: type, name: str, wanted: tuple[str, ...]) -> bool:
    """Whether a method takes these parameters first."""
    return tuple(inspect.signature(getattr(store, name)).parameters)[1 : 1 + len(wanted)] == wanted


def _calls(store: type, name: str, end: str) -> bool:
    """Whether a method's code calls another of the store's methods."""
    return end in inspect.unwrap(getattr(store, name)).__code__.co_names
