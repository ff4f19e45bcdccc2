"""The numbers of measurements as MLflow shows them, on a real tracking store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_quantgov.evidence import metrics
from mlflow_quantgov.evidence.predicates import (
    Archive,
    ArchivedFile,
    Calibration,
    DataRecord,
    DocumentRecord,
    Fidelity,
    Provenance,
    Side,
    TaskEval,
)
from mlflow_quantgov.evidence.predicates.fidelity import kl_bin

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def model_id(new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A LoggedModel in a local store."""
    mlflow.set_tracking_uri(new_sqlite_database())
    # By the variable: `set_experiment` would outlive the test.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", mlflow.create_experiment("e", str(tmp_path / "artifacts")))
    yield mlflow.initialize_logged_model(name="m").model_id
    mlflow.set_tracking_uri(None)


@pytest.fixture
def fidelity(provenance: Provenance) -> Fidelity:
    """One document."""
    document = DocumentRecord(
        id=DIGEST, tokens=10, parent_nll=20.0, quantized_nll=22.0, kl=1.0, kl_max=0.5, same_top=9, identical=0,
        kl_counts=((kl_bin(0.0555), 9), (kl_bin(0.5), 1)),
    )  # fmt: skip
    side = Side(weights=DIGEST, runtime="r", version="1")
    return Fidelity.measured(
        provenance=provenance, parent=side, quantized=side, data=DIGEST, settings={}, documents=(document,)
    )


def test_accuracy_of_each_task_is_a_metric_of_the_model_with_its_data(
    model_id: str, task_eval: Callable[..., TaskEval]
) -> None:
    measured = task_eval([1, 1, 0, 0], [1, 0, 0, 0])
    metrics.record(model_id, measured)
    found = {one.key: one for one in mlflow.MlflowClient().get_logged_model(model_id).metrics}
    task = measured.tasks[0]
    expected = measured.stated()[task.task]
    assert found[f"{task.task}/quantized"].value == expected["quantized_mean"]
    assert found[f"{task.task}/parent"].value == expected["parent_mean"]
    assert found[f"{task.task}/quantized"].dataset_name == task.task
    run = mlflow.get_run(found[f"{task.task}/quantized"].run_id)
    assert (run.info.run_name, run.info.status) == ("quantgov task-eval", "FINISHED")
    assert task.task_digest in run.inputs.dataset_inputs[0].dataset.source


def test_an_active_run_is_used(model_id: str, fidelity: Fidelity) -> None:
    with mlflow.start_run() as run:
        metrics.record(model_id, fidelity)
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert mlflow.get_run(run.info.run_id).data.metrics["kl_mean"] == fidelity.stated()["kl_mean"]
    assert mlflow.get_run(run.info.run_id).data.metrics["kl_p99"] == 0.5


def test_calibration_data_are_datasets_and_no_metric(model_id: str, provenance: Provenance) -> None:
    data = DataRecord(digest=DIGEST, documents=100, characters=1000)
    calibration = Calibration.measured(
        provenance=provenance, data=data, production=data, leaked_documents=0, shared_with_production=0
    )
    metrics.record(model_id, calibration)
    (run,) = mlflow.search_runs(output_format="list")
    contexts = {tag.value for one in run.inputs.dataset_inputs for tag in one.tags}
    assert "calibration" in contexts and run.data.metrics == {}


def test_what_holds_nothing_to_compare_makes_no_run(model_id: str, provenance: Provenance) -> None:
    archive = Archive.measured(
        provenance=provenance, store="file:///a", manifest_digest=DIGEST, stored_bytes=1,
        files=(ArchivedFile(path="a", size=1, sha256="1" * 64),),
    )  # fmt: skip
    metrics.record(model_id, archive)
    assert mlflow.search_runs(output_format="list") == []


def test_a_model_that_is_gone_is_only_warned_about(
    model_id: str, fidelity: Fidelity, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.record("m-" + "0" * 32, fidelity)
    assert "did not take its metrics" in caplog.text
