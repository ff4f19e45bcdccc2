"""The report of one version as one self-contained HTML file: verdict, the five answers, then the evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mlflow_quantgov.artifact.describe import headline, rows
from mlflow_quantgov.pages.benchmark import benchmark_section
from mlflow_quantgov.pages.calibration import calibration_section
from mlflow_quantgov.pages.fidelity_plot import kl_plot
from mlflow_quantgov.pages.plot import Interval, interval_plot, layer_plot
from mlflow_quantgov.pages.render import render
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.facts import Facts, reproductions
from mlflow_quantgov.policy.schema import ParentPin
from mlflow_quantgov.version import __version__


def render_report(facts: Facts, decision: Decision | None, *, title: str, served: bool = False) -> str:
    """Render the report; nothing in it refers to another host.

    Args:
        facts: What is known about the version.
        decision: The verdict to show, if one was asked for.
        title: Heading.
        served: Whether a server shows it, with ways to its other pages; a file leads nowhere.
    """
    capabilities = _capabilities(decision)
    descent = facts.lineage.descent if facts.lineage else None
    again = reproductions(facts)
    ranked = sorted(facts.evidence, key=lambda one: one.rank)
    summaries = {one.kind: one.content.stated() for one in ranked}
    return render(
        "report.html",
        title=title,
        served=served,
        facts=facts,
        decision=decision,
        plot=interval_plot([one["interval"] for one in capabilities]),
        capabilities=capabilities,
        fidelity=summaries.get("fidelity"),
        kl_plot=kl_plot(next((one.content for one in reversed(ranked) if one.kind == "fidelity"), None)),
        benchmark=benchmark_section(facts),
        calibration=calibration_section(facts),
        headline=headline(facts.model.quantization) if facts.model else None,
        described=rows(facts.model.quantization) if facts.model else {},
        pin=ParentPin.of(facts.original).line if facts.original else None,
        descent=descent,
        reproduction=again[-1].content if again else None,
        descent_plot=layer_plot(descent.layers) if descent else None,
        evidence=facts.evidence,
        made_at=datetime.now(UTC).isoformat(),
        version=__version__,
    )


def _capabilities(decision: Decision | None) -> list[dict[str, Any]]:
    """Numbers of each judged capability, with its interval."""
    check = next((one for one in decision.checks if one.check == "task-eval"), None) if decision else None
    found = []
    for name, numbers in (check.numbers if check else {}).items():
        if isinstance(numbers, dict) and "lower" in numbers:
            interval = Interval(
                name, numbers["estimate"], numbers["lower"], numbers["upper"], numbers["margin"], numbers["outcome"]
            )
            found.append({"name": name, **numbers, "interval": interval})
    return found
