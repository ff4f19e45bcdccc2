"""`quantgov doctor`: is this deployment really gated?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import click

from mlflow_quantgov.cli.deep_doctor import DeepFinding, deep_findings, exit_code
from mlflow_quantgov.cli.output import coloured, json_option, print_fix, print_json, stdout


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    outcome: str
    """`pass`, `fail` or `inconclusive`."""
    detail: str
    fix: str = ""


@click.command()
@click.option(
    "--deep", is_flag=True, help="Also read the files of every registered version again; exit 4 where any has changed."
)
@json_option
def doctor(deep: bool, as_json: bool) -> int:
    """Examine the registry that MLflow is set to, and the libraries installed here."""
    reread = deep_findings() if deep else []
    findings: list[Finding | DeepFinding] = [*_registry(), _versions(), *_extras(), *reread]
    if as_json:
        print_json(
            {"ok": all(one.outcome != "fail" for one in findings), "findings": [asdict(one) for one in findings]}
        )
    else:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("what", "outcome", "detail"):
            table.add_column(column, overflow="fold")
        for one in findings:
            table.add_row(one.what, coloured(one.outcome), one.detail)
        stdout.print(table)
        for one in findings:
            if one.fix:
                print_fix(one.fix)
    return exit_code(reread) or (1 if any(one.outcome == "fail" for one in findings) else 0)


def _registry() -> list[Finding]:
    import mlflow

    from mlflow_quantgov.gate.client import find_gate

    uri = mlflow.get_registry_uri()
    gate = find_gate()
    if gate is None:
        fix = (
            "quantgov server --backend-store-uri sqlite:///mlflow.db & export MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        )
        return [Finding("gate", "fail", f"{uri} is not gated: any version can be promoted without evidence", fix)]
    status, chain = gate.status(), gate.verify()
    policy = status["policy"]
    observing = policy["mode"] == "observe"
    return [
        Finding("gate", "pass", f"{uri} is gated by mlflow-quantgov {status['version']}"),
        Finding(
            "policy",
            "fail" if observing else "pass",
            f"{policy['name']} {policy['digest'][:19]}, mode {policy['mode']}",
            "set `mode: enforce` in the policy and restart the server" if observing else "",
        ),
        _keys(status.get("keys")),
        Finding(
            "ledger",
            "pass" if chain["ok"] else "fail",
            f"{chain['rows']} rows, " + ("chain unbroken" if chain["ok"] else f"row {chain['first_bad']} was changed"),
            "" if chain["ok"] else "quantgov audit verify",
        ),
    ]


def _keys(found: dict[str, Any] | None) -> Finding:
    """Whose signatures are believed, and whether the policy asks for more than anybody can give."""
    if not found:
        return Finding("keys", "inconclusive", "this gate is of a version that knows no signatures")
    said = f"{found['count']} trusted {found['digest'][:19]}" if found["count"] else "nobody's signature counts"
    if not found["lacking"]:
        return Finding("keys", "pass", said)
    role = found["lacking"][0]
    fix = f"quantgov keys trust NAME.pub.pem --name NAME --role {role}; quantgov server --keys keys.yaml ..."
    return Finding("keys", "fail", f"{said}; the policy wants signatures by a {role}, and no key has that role", fix)


def _versions() -> Finding:
    import mlflow
    from packaging.version import Version

    found = Version(mlflow.__version__)
    supported = Version("3.17") <= found < Version("4")
    return Finding(
        "mlflow",
        "pass" if supported else "fail",
        f"{found}; supported are >=3.17,<4",
        "" if supported else "pip install 'mlflow>=3.17,<4'",
    )


def _extras() -> list[Finding]:
    from importlib.util import find_spec

    from mlflow_quantgov.artifact.runtimes.llama_cpp.libraries import module

    libraries = {
        "gguf": (module(), "gguf"),
        "eval": ("lm_eval", "datasets"),
        "transformers": ("torch", "transformers"),
        "calibration": ("great_expectations",),
        "sign": ("cryptography",),
    }
    return [
        Finding(f"extra [{extra}]", "inconclusive", f"{', '.join(absent)} is not installed; what needs it says so")
        if (absent := [name for name in names if not find_spec(name)])
        else Finding(f"extra [{extra}]", "pass", "installed")
        for extra, names in libraries.items()
    ]
