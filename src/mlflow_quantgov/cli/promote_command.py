"""`quantgov check`, `quantgov promote` and `quantgov rollback`."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.output import json_option, print_decision, print_json, print_note, stdout
from mlflow_quantgov.policy.decision import Decision


@click.command()
@click.argument("uri")
@click.option("--to", required=True, help="@alias or a stage.")
@click.option("--policy", type=click.Path(path_type=Path), help="Ask 'what if' with this policy file.")
@json_option
def check(uri: str, to: str, policy: Path | None, as_json: bool) -> int:
    """Say what the gate would decide, and what is missing."""
    from mlflow_quantgov import api

    decision = api.check(uri, to, policy)
    if decision.what_if and policy is None:
        said = "nothing is gated here; asked the default policy. Fix: quantgov doctor"
        print_note(said, word="warning", error=True)
    return _show(decision, as_json)


@click.command()
@click.argument("uri")
@click.option("--to", required=True, help="@alias or a stage.")
@json_option
def promote(uri: str, to: str, as_json: bool) -> int:
    """Ask the gate for a protected alias or stage."""
    from mlflow_quantgov import api

    decision = api.promote(uri, to)
    return _show(decision, as_json, changed=decision.allowed or decision.mode == "observe")


@click.command()
@click.argument("name")
@click.option("--alias", required=True, help="Alias to move.")
@click.option("--to", help="Version to move it to; default: the full-precision parent.")
@json_option
def rollback(name: str, alias: str, to: str | None, as_json: bool) -> None:
    """Move an alias back to the full-precision parent in one operation."""
    from mlflow_quantgov import api

    done = api.rollback(name, alias, to)
    if as_json:
        print_json(
            {
                "model": done.model,
                "alias": done.alias,
                "from": done.before,
                "to": done.after,
                "decision_id": done.decision_id,
            }
        )
    else:
        stdout.print(f"{done.model}@{done.alias} moved from version {done.before} to version {done.after}")


def _show(decision: Decision, as_json: bool, changed: bool | None = None) -> int:
    if as_json:
        print_json(decision.to_dict() | ({} if changed is None else {"changed": changed}))
    else:
        print_decision(decision)
    return 0 if changed else decision.exit_code
