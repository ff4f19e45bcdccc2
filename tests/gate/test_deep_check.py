"""Files that were changed past the server are found by their digests: read again by `doctor --deep`, and on loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.cli import main
from mlflow_quantgov.errors import TamperingError, UsageError
from mlflow_quantgov.flavor import _load_pyfunc
from mlflow_quantgov.flavor.download import find_version
from mlflow_quantgov.gate.clients.finding import find_gate
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.gate.write_once.deep_check import Reread, deep_check

POLICY = """
schema: quantgov/policy/v1
name: identity
gates:
  identity: {checks: [identity]}
rules:
  - models: "*"
    destinations: {"@champion": identity, "Production": identity}
"""
MLMODEL = "flavors:\n  python_function: {loader_module: mlflow_quantgov.flavor, data: model}\n"


@pytest.fixture
def root(
    new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Callable[..., str]
) -> Iterator[Path]:
    """The folder of version 1 of `chat`, which was approved for @champion."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    uri = f"quantgov:{new_sqlite_database()}"
    folder = Path(logged(tmp_path / "files", "gptq-w4g32", None))
    (folder / "MLmodel").write_text(MLMODEL)
    store: Any = open_store(uri)
    store.create_registered_model("chat")
    store.create_model_version("chat", str(folder))
    store.set_registered_model_alias("chat", "champion", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.removeprefix("quantgov:"))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    mlflow.set_registry_uri(uri)
    yield folder
    mlflow.set_registry_uri(None)


def reread() -> Reread:
    (found,) = deep_check(find_gate())
    return found


def overwrite(root: Path, *, manifest_too: bool) -> str:
    """Change a file in its place, as somebody with access to the store does."""
    path = next((root / "model").glob("*.json"))
    path.write_text(path.read_text() + " ")
    if manifest_too:
        (root / "quantgov" / "manifest.json").write_text(build_manifest(root / "model").to_json())
    return f"model/{path.name}"


def test_what_is_as_approved_passes(root: Path) -> None:
    found = reread()
    assert (found.outcome, found.files) == ("pass", ())
    assert "what was approved for @champion" in found.detail


def test_a_changed_file_is_named(root: Path) -> None:
    name = overwrite(root, manifest_too=False)
    found = reread()
    assert (found.outcome, found.files) == ("fail", (name,))


def test_an_added_and_a_missing_file_are_named(root: Path) -> None:
    weights = next((root / "model").glob("*.safetensors"))
    (root / "model" / "notes.txt").write_text("new")
    shutil.move(weights, root / "model" / "other.safetensors")
    found = reread()
    assert found.outcome == "fail"
    assert set(found.files) == {"model/notes.txt", f"model/{weights.name}", "model/other.safetensors"}


def test_a_manifest_that_was_made_to_fit_is_found(root: Path) -> None:
    """Only the ledger knows what was approved."""
    overwrite(root, manifest_too=True)
    found = reread()
    assert found.outcome == "fail" and "quantgov/manifest.json" in found.files


def test_the_archive_names_the_file_where_the_manifest_was_replaced(root: Path) -> None:
    from mlflow_quantgov.evidence.predicates import Archive, Provenance
    from mlflow_quantgov.evidence.statement import Statement
    from mlflow_quantgov.evidence.store import write_copy

    before = build_manifest(root / "model")
    files = [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in before.files]
    content = Archive.measured(
        provenance=Provenance(measured_at="2026-01-01T00:00:00Z", tool_version="0"), store="/archive",
        manifest_digest=before.digest, files=files, stored_bytes=0,
    )  # fmt: skip
    write_copy(root, Statement.about(before.weights_digest, content, name="chat"))
    name = overwrite(root, manifest_too=True)
    assert reread().files == ("quantgov/manifest.json", name)


def test_an_edited_copy_of_evidence_is_named(root: Path) -> None:
    (root / "quantgov" / "evidence").mkdir()
    (root / "quantgov" / "evidence" / "fidelity-0123456789abcdef.json").write_text("{}")
    found = reread()
    assert (found.outcome, found.files) == ("fail", ("quantgov/evidence/fidelity-0123456789abcdef.json",))


def test_a_link_among_the_copies_is_found(root: Path) -> None:
    (root / "quantgov" / "evidence").mkdir()
    (root / "quantgov" / "evidence" / "fidelity-0123456789abcdef.json").symlink_to(root / "MLmodel")
    assert (reread().outcome, reread().files) == ("fail", ("quantgov/evidence",))


def test_another_loader_is_found(root: Path) -> None:
    (root / "MLmodel").write_text(MLMODEL.replace("mlflow_quantgov.flavor", "somebody.elses"))
    assert (reread().outcome, reread().files) == ("fail", ("MLmodel",))


def test_missing_files_of_an_approved_version_are_a_failure(root: Path) -> None:
    shutil.rmtree(root)
    assert reread().outcome == "fail"


def test_a_decision_about_an_earlier_version_of_that_number_does_not_count(root: Path, tmp_path: Path) -> None:
    store: Any = open_store(mlflow.get_registry_uri())
    store.delete_registered_model_alias("chat", "champion")
    store.delete_registered_model("chat")
    overwrite(root, manifest_too=True)
    store.create_registered_model("chat")
    store.create_model_version("chat", str(root))
    found = reread()
    assert found.outcome == "pass" and "what was logged" in found.detail


@pytest.mark.parametrize("what", ["model", "version", "another version", "model and another version"])
def test_what_somebody_has_flagged_as_a_prompt_is_read_all_the_same(root: Path, what: str) -> None:
    """MLflow's search leaves it out, and with one version every other one of its model."""
    client = mlflow.MlflowClient()
    overwrite(root, manifest_too=False)
    if what != "model":
        client.create_model_version("chat", str(root))
        client.set_model_version_tag("chat", "1" if what == "version" else "2", "mlflow.prompt.is_prompt", "true")
    if what.startswith("model"):
        client.set_registered_model_tag("chat", "mlflow.prompt.is_prompt", "true")
    first, *_ = deep_check(find_gate())
    assert (first.version, first.outcome) == ("1", "fail"), first


def test_the_latest_of_what_mlflow_hides_is_not_guessed(root: Path) -> None:
    """It was taken to be version 1, whichever versions there are."""
    client = mlflow.MlflowClient()
    client.create_model_version("chat", str(root))
    found = find_version("models:/chat/latest")
    assert found is not None and str(found.version) == "2"
    client.set_model_version_tag("chat", "2", "mlflow.prompt.is_prompt", "true")
    with pytest.raises(UsageError, match="MLflow finds no version of chat"):
        find_version("models:/chat/latest")


def test_a_prompt_is_not_looked_for_on_a_disk(root: Path) -> None:
    mlflow.MlflowClient().register_prompt("greeting", "Hello {{ name }}")
    assert reread().model == "chat"


def test_the_command_exits_with_4_and_names_the_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = overwrite(root, manifest_too=False)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--deep", "--json"])
    found = json.loads(capsys.readouterr().out)
    (bad,) = [one for one in found["findings"] if one["what"] == "chat version 1"]
    assert stopped.value.code == 4 and not found["ok"]
    assert bad["files"] == [name] and bad["fix"]


@pytest.mark.parametrize("manifest_too", [True, False])
def test_pyfunc_does_not_load_what_was_changed_after_the_approval(root: Path, manifest_too: bool) -> None:
    """Before, only the manifest beside the files was compared, which whoever changes them can change too."""
    (root / "registered_model_meta").write_text("model_name: chat\nmodel_version: '1'\n")
    overwrite(root, manifest_too=manifest_too)
    with pytest.raises(TamperingError):
        _load_pyfunc(str(root / "model"))


def test_mlflow_s_own_note_of_a_download_is_no_change(root: Path) -> None:
    (root / "registered_model_meta").write_text("model_name: chat\nmodel_version: '1'\n")
    assert reread().outcome == "pass"
