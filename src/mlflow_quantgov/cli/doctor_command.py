"""`quantgov doctor`: is this deployment really gated?"""

from __future__ import annotations

from dataclasses import asdict

import click

from mlflow_quantgov.cli.deep_doctor import deep_findings, exit_code
from mlflow_quantgov.cli.findings import Finding
from mlflow_quantgov.cli.gate_findings import gate_findings
from mlflow_quantgov.cli.output import coloured, json_option, print_fix, print_json, stdout


@click.command()
@click.option(
    "--deep", is_flag=True, help="Also read the files of every registered version again; exit 4 where any has changed."
)
@json_option
def doctor(deep: bool, as_json: bool) -> int:
    """Examine the registry that MLflow is set to, and the libraries installed here."""
    reread = deep_findings() if deep else []
    findings = [*gate_findings(), _versions(), *_extras(), *reread]
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


def _versions() -> Finding:
    import mlflow

    from mlflow_quantgov.gate.doors.supported import SUPPORTED

    supported = SUPPORTED.contains(mlflow.__version__)
    return Finding(
        "mlflow",
        "pass" if supported else "fail",
        f"{mlflow.__version__}; supported are {SUPPORTED}",
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
