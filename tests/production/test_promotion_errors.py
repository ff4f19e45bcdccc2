"""What `promote` says where it was turned away."""

from __future__ import annotations

from mlflow.exceptions import MlflowException

from mlflow_quantgov.gate.doors.refusals import refusal
from mlflow_quantgov.production.promotion import _explain


def test_the_gates_own_fix_is_the_one_that_is_shown() -> None:
    """It said `quantgov check`, which a server whose policy is not in force refuses too."""
    stale = refusal("quantgov refused: the policy is not in force any more. Fix: restart this server")
    found = _explain("chat", "1", "@champion", stale)
    assert found.fix == "restart this server"
    assert "Fix" not in found.what and "not in force" in found.what


def test_without_one_the_decision_is_asked_for() -> None:
    found = _explain("chat", "1", "@champion", MlflowException("no", error_code=1))
    assert found.fix == "quantgov doctor"
    found = _explain("chat", "1", "@champion", refusal("no"))
    assert found.fix.startswith("quantgov check models:/chat/1")
