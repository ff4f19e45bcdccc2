"""An auditor's session: who decided what, on which evidence, and was any of it altered?

Needs a gated server named by MLFLOW_TRACKING_URI; the registered model is the first argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_quantgov import api
from mlflow_quantgov.gate.clients.finding import require_gate


def main(model: str, folder: Path) -> int:
    """Print the ledger, retrace its newest decision, verify the chain, and write a report; 4 where it is broken."""
    gate = require_gate("show its ledger")
    rows = gate.ledger(model)
    for row in rows:
        print(
            row["seq"],
            row["created_at"][:19],
            row["kind"],
            row["version"],
            row["destination"],
            row["decision"],
            row["actor"],
        )
    judged = next(row for row in rows if row["kind"] in {"promotion", "denial"})
    decision = gate.decision(judged["decision_id"])
    assert decision is not None
    for answer in decision.self_audit:
        print(answer.answer, answer.question, "-", answer.why)
    report = folder / f"{model}-{decision.version}.html"
    api.report(f"models:/{model}/{decision.version}", report, decision.destination)
    print("report:", report)
    chain = gate.verify()
    print("chain unbroken:", chain["ok"], "rows:", chain["rows"])
    return 0 if chain["ok"] else 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".")))
