"""`quantgov server`: `mlflow server` with the gate in front of its registry."""

from __future__ import annotations

import difflib
import os
import secrets
import socket
import sys
from pathlib import Path

import click

from mlflow_quantgov.errors import UsageError, require

DEFAULT_STORE = "sqlite:///mlflow.db"


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--policy", type=click.Path(path_type=Path), help="Policy file; default: the shipped default.yaml.")
@click.option(
    "--keys", type=click.Path(path_type=Path), help="File of trusted keys; default: nobody's signature counts."
)
@click.option(
    "--no-triggers", is_flag=True, help="Make no triggers in the database; a script on it is not refused then."
)
@click.option("--backend-store-uri", default=DEFAULT_STORE, show_default=True, help="Database of MLflow and the gate.")
@click.option("--basic-auth", is_flag=True, help="Ask for a login: MLflow's basic-auth app in front of everything.")
@click.pass_context
def server(
    context: click.Context,
    policy: Path | None,
    keys: Path | None,
    no_triggers: bool,
    backend_store_uri: str,
    basic_auth: bool,
) -> None:
    """Start a gated MLflow server; every other option is passed on to `mlflow server`."""
    command = build_command(backend_store_uri, context.args, basic_auth=basic_auth)
    check_options(context.args)
    check_database(backend_store_uri)
    check_address(context.args)
    check_gate()
    environment = build_environment(policy, keys, backend_store_uri)
    if no_triggers:
        environment["QUANTGOV_NO_TRIGGERS"] = "1"
    if basic_auth:
        environment |= prepare_login(_option(context.args, "--static-prefix") or "")
    os.execve(command[0], command, environment)  # noqa: S606  (no shell; the server takes this process's place)


def build_command(backend_store_uri: str, options: list[str], *, basic_auth: bool = False) -> list[str]:
    """The `mlflow server` command with the gated store and the app plugin.

    Args:
        backend_store_uri: Database of MLflow and the gate.
        options: Options for `mlflow server`.
        basic_auth: Whether MLflow's basic-auth app stands in front.

    Raises:
        UsageError: An option would take the gate out again.
    """
    for option in options:
        if option.split("=")[0] in {"--registry-store-uri", "--app-name"}:
            wants_login = "basic-auth" in " ".join(options)
            raise UsageError(
                f"{option.split('=')[0]} cannot be given to `quantgov server`.",
                why="It sets that option itself; another value would start an ungated server.",
                fix=f"quantgov server {'--basic-auth ' if wants_login else ''}--backend-store-uri sqlite:///mlflow.db",
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
        "quantgov-auth" if basic_auth else "quantgov",
        *options,
    ]


def check_options(options: list[str]) -> None:
    """Refuse what `mlflow server` would refuse, in its own words and with its own exit code.

    Raises:
        UsageError: An option is not known.
    """
    from mlflow.cli import server as plain

    known = {name: one for one in plain.params for name in (*one.opts, *one.secondary_opts)}
    given = iter(options)
    for option in given:
        name, equals, _ = option.partition("=")
        if name in known and not equals and not getattr(known[name], "is_flag", False):
            next(given, None)  # its value, whatever that begins with
        if name.startswith("-") and name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            raise UsageError(
                f"Neither `quantgov server` nor `mlflow server` knows the option {name}.",
                why=f"Did you mean {near[0]}?" if near else "Nothing was started.",
                fix="mlflow server --help",
            )


def check_database(uri: str) -> None:
    """Refuse a database that the gate cannot be put in front of.

    Raises:
        UsageError: It is neither SQLite nor PostgreSQL.
    """
    if not uri.startswith(("sqlite:", "postgresql:", "postgresql+")):
        raise UsageError(
            f"{uri.split('@')[-1]} names no SQLite or PostgreSQL database.",
            why="The gate writes its decision and MLflow's change in one transaction of one of these.",
            fix="quantgov server --backend-store-uri sqlite:///mlflow.db",
        )


def check_gate() -> None:
    """Refuse an MLflow in which the gate could be walked around, before a server's workers would, again and again.

    Raises:
        UnsupportedMlflowError: Its version, its registry or a setting is such.
    """
    from mlflow_quantgov.gate.doors.supported import check_mlflow, check_server_settings

    check_mlflow()
    check_server_settings()


def prepare_login(static_prefix: str) -> dict[str, str]:
    """Do what `mlflow server --app-name basic-auth` does before it starts workers.

    Args:
        static_prefix: The server's `--static-prefix`.

    Returns:
        Variables for the server's environment.

    Raises:
        MissingExtraError: The libraries of MLflow's basic-auth app are not installed.
        UsageError: It lacks a secret key or an administrator's password.
    """
    from mlflow.exceptions import MlflowException

    from mlflow_quantgov.pages.auth_app import basic_auth

    try:
        auth = basic_auth(static_prefix)
        auth.get_flask_server_secret_key()
        auth.bootstrap_admin_user()
    except MlflowException as error:
        raise UsageError(
            f"MLflow's basic-auth app cannot start: {error.message}",
            why="Nothing was started.",
            fix="export MLFLOW_FLASK_SERVER_SECRET_KEY=... MLFLOW_AUTH_ADMIN_PASSWORD=...",
        ) from error
    # The jobs of this server sign in at its own gateway with a word that nobody else knows.
    return {"_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true", "_MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN": secrets.token_hex(32)}


def check_address(options: list[str]) -> None:
    """Refuse an address that somebody else listens on; uvicorn would say so and exit with 0.

    Raises:
        UsageError: The port is taken, or is no number.
    """
    host, port = _option(options, "--host", "-h") or "127.0.0.1", _option(options, "--port", "-p") or "5000"
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"The server cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}.",
            why="Nothing was started.",
            fix="quantgov server --port 5001",
        ) from error


def _option(options: list[str], *names: str) -> str | None:
    """The last value of an option, given as `--name value` or `--name=value`."""
    found = None
    for index, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name in names:
            found = value if equals else next(iter(options[index + 1 : index + 2]), None)
    return found


def build_environment(
    policy: Path | None, keys: Path | None = None, backend_store_uri: str = DEFAULT_STORE
) -> dict[str, str]:
    """This process's environment, with policy and trusted keys checked and named.

    Whatever else the server starts (MLflow's jobs) finds the same gate in front of the registry.

    Raises:
        PolicyError: One of the files is wrong; nothing is started.
        MissingExtraError: There are keys, and `cryptography` is not installed.
    """
    from mlflow_quantgov.evidence.signing import load_trusted_keys
    from mlflow_quantgov.gate.in_force import START
    from mlflow_quantgov.policy.loader import load_policy

    environment = dict(os.environ) | {"MLFLOW_REGISTRY_URI": f"quantgov:{backend_store_uri}"}
    environment[START] = secrets.token_hex(16)
    if policy is not None:
        environment["QUANTGOV_POLICY"] = str(policy.resolve())
    if keys is not None:
        environment["QUANTGOV_KEYS"] = str(keys.resolve())
    load_policy(environment.get("QUANTGOV_POLICY"))
    if load_trusted_keys(environment.get("QUANTGOV_KEYS")).keys:
        require("cryptography", extra="sign", purpose="verify signatures by trusted keys")
    return environment
