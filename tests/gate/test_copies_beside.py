"""The copy of a statement beside the model is for people: without it the statement counts all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import Withdrawal
from mlflow_quantgov.evidence.signing import Attached
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.versions import _put_beside


class Denies(BaseHTTPRequestHandler):
    """As MLflow's login answers whoever may change a model, and not the experiment in which it was logged."""

    def do_GET(self) -> None:
        self.send_error(403, "Permission denied")

    do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def denied(tmp_path: Path) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Denies)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mlflow.set_tracking_uri(f"http://127.0.0.1:{server.server_port}")
    yield
    mlflow.set_tracking_uri(None)
    server.shutdown()


def withdrawal() -> Attached:
    content = Withdrawal.measured(
        provenance=provenance(), model="chat", version="1", created=1, destination="@champion", by="ben"
    )
    return Attached(Statement.about("sha256:" + "0" * 64, content, name="chat"))


def test_a_store_that_takes_no_copy_makes_no_error_of_what_the_gate_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk, or the library of a cloud: each has errors of its own, of which MLflow makes none of its own."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'tracking.db'}")
    experiment = mlflow.MlflowClient().create_experiment("e", artifact_location=str(tmp_path / "files"))
    model = mlflow.MlflowClient().create_logged_model(experiment, name="m")
    (tmp_path / "files").write_text("no folder")
    _put_beside(model.model_id, withdrawal(), taken_in=True)
    assert "the gate has the statement, and that counts" in caplog.text
    with pytest.raises(OSError):
        _put_beside(model.model_id, withdrawal(), taken_in=False)


def test_whoever_may_not_write_beside_the_model_is_told_that_the_gate_has_it(
    denied: None, caplog: pytest.LogCaptureFixture
) -> None:
    attached = withdrawal()
    _put_beside("m-" + "0" * 32, attached, taken_in=True)
    assert "the gate has the statement, and that counts" in caplog.text and "403" in caplog.text
    # Where nothing is gated, the copy is all the evidence that there is.
    with pytest.raises(MlflowException):
        _put_beside("m-" + "0" * 32, attached, taken_in=False)
