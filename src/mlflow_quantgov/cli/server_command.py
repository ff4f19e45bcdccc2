"""`quantgov server`: `mlflow server` with the gate in front of its registry."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from mlflow_quantgov.errors import UsageError

DEFAULT_STORE = "sqlite:///mlflow.db"


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--policy", type=click.Path(path_type=Path), help="Policy file; default: the shipped default.yaml.")
@click.option("--backend-store-uri", default=DEFAULT_STORE, show_default=True, help="Database of MLflow and the gate.")
@click.pass_context
def server(context: click.Context, policy: Path | None, backend_store_uri: str) -> None:
    """Start a gated MLflow server; every other option is passed on to `mlflow server`."""
    command = build_command(backend_store_uri, context.args)
    environment = build_environment(policy)
    os.execve(command[0], command, environment)  # noqa: S606  (no shell; the server takes this process's place)


def build_command(backend_store_uri: str, options: list[str]) -> list[str]:
    """The `mlflow server` command with the gated store and the app plugin.

    Raises:
        UsageError: An option would take the gate out again.
    """
    for option in options:
        if option.split("=")[0] in {"--registry-store-uri", "--app-name"}:
            raise UsageError(
                f"{option.split('=')[0]} cannot be given to `quantgov server`.",
                why="It sets that option itself; another value would start an ungated server.",
                fix="quantgov server --backend-store-uri sqlite:///mlflow.db",
            )
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        backend_store_uri,
        "--registry-store-uri",
        f"quantgov:{backend_store_uri}",
        "--app-name",
        "quantgov",
        *options,
    ]


def build_environment(policy: Path | None) -> dict[str, str]:
    """This process's environment, with the policy checked and named.

    Raises:
        PolicyError: The policy file is wrong; nothing is started.
    """
    from mlflow_quantgov.policy.loader import load_policy

    environment = dict(os.environ)
    if policy is not None:
        environment["QUANTGOV_POLICY"] = str(policy.resolve())
    load_policy(environment.get("QUANTGOV_POLICY"))
    return environment
