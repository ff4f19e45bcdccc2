"""`quantgov doctor --deep`: are the files of every version still those that were approved?"""

from __future__ import annotations

from mlflow_quantgov.cli.findings import Finding
from mlflow_quantgov.errors import TamperingError


def deep_findings() -> list[Finding]:
    """One finding for each registered version of the registry that MLflow is set to."""
    from mlflow_quantgov.gate.clients.finding import find_gate
    from mlflow_quantgov.gate.write_once.deep_check import deep_check

    found = []
    for one in deep_check(find_gate()):
        fix = ""
        if one.outcome == "fail":
            fix = (
                f"quantgov audit log {one.model}; restore the files from the store's own versions, or log the model again; "
                f"until then move aliases away from version {one.version}"
            )
        found.append(Finding(f"{one.model} version {one.version}", one.outcome, one.detail, fix, one.files))
    return found


def exit_code(findings: list[Finding]) -> int:
    """4 where any version's files were tampered with."""
    return TamperingError.exit_code if any(one.outcome == "fail" for one in findings) else 0
