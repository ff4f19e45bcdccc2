"""Which writes are refused, asked of a repository in this process: spellings, folders, races."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.azure_blob_artifact_repo import AzureBlobArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_quantgov.errors import ArtifactError
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.gate.write_once.artifact_repo import guarded
from mlflow_quantgov.gate.write_once.folder_locks import FolderLocks
from mlflow_quantgov.gate.write_once.places import DESTINATION, Place, place_of
from mlflow_quantgov.gate.write_once.write_guard import WriteGuard

NAMES = st.text(
    st.characters(blacklist_characters="/\\%?#\0;", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8
)


@pytest.fixture
def model(store: Any, tmp_path: Path) -> Path:
    """The folder of a registered version."""
    root = tmp_path / "artifacts" / "1" / "models" / "m-1" / "artifacts"
    (root / "model").mkdir(parents=True)
    (root / "model" / "weights.bin").write_bytes(b"as registered")
    store.create_registered_model("chat")
    store.create_model_version("chat", str(root))
    return root


@pytest.fixture
def repository(store: Any, tmp_path: Path) -> LocalArtifactRepository:
    """What a server writes with."""
    made: LocalArtifactRepository = guarded(
        LocalArtifactRepository(str(tmp_path / "artifacts")), WriteGuard(store.engine)
    )
    return made


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder of files that somebody wants to write."""
    folder = tmp_path / "other"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(b"changed")
    (folder / "aaa.txt").write_bytes(b"harmless")
    return folder


def refused(write: Callable[[], Any]) -> str:
    with pytest.raises(MlflowException, match="quantgov refused") as told:
        write()
    return str(told.value)


def test_a_file_or_a_folder_is_not_written_over(model: Path, repository: LocalArtifactRepository, other: Path) -> None:
    inside = "1/models/m-1/artifacts"
    weights = str(other / "model" / "weights.bin")
    refused(lambda: repository.log_artifact(weights, f"{inside}/model"))
    refused(lambda: repository.log_artifacts(str(other), inside))
    assert not (model / "aaa.txt").exists(), "all of them or none"
    (other / "m-1").write_bytes(b"a file in place of a folder")
    assert "replaced" in refused(lambda: repository.log_artifact(str(other / "m-1"), "1/models"))
    (other / "x" / "m-1" / "artifacts").mkdir(parents=True)
    (other / "x" / "m-1" / "artifacts" / "new.bin").write_bytes(b"x")
    refused(lambda: repository.log_artifacts(str(other / "x"), "1/models"))
    assert [p.name for p in model.rglob("*") if p.is_file()] == ["weights.bin"]


@pytest.mark.parametrize("path", [None, "", "1", "1/models", "1/models/m-1/artifacts/model", "1/models/m-1"])
def test_neither_a_model_nor_a_folder_above_it_is_deleted(
    model: Path, repository: LocalArtifactRepository, path: str | None
) -> None:
    refused(lambda: repository.delete_artifacts(path))
    assert (model / "model" / "weights.bin").read_bytes() == b"as registered"


@pytest.mark.parametrize("path", ["1/models/m-1/x/../artifacts/model", "1/models/m-1/artifacts/../../m-1"])
def test_a_path_that_leads_out_is_refused(model: Path, repository: LocalArtifactRepository, path: str) -> None:
    refused(lambda: repository.delete_artifacts(path))
    assert model.exists()


def test_percent_signs_are_read_as_the_local_repository_reads_them(
    model: Path, repository: LocalArtifactRepository
) -> None:
    """MLflow decodes the whole path once more when it deletes."""
    refused(lambda: repository.delete_artifacts("1/models/m%2D1/artifacts"))
    assert model.exists()


def test_a_link_leads_to_the_same_place(
    model: Path, repository: LocalArtifactRepository, other: Path, tmp_path: Path
) -> None:
    (tmp_path / "artifacts" / "link").symlink_to(model)
    refused(lambda: repository.log_artifact(str(other / "model" / "weights.bin"), "link/model"))


def test_a_name_in_another_case_is_another_folder_where_the_file_system_says_so(
    model: Path, repository: LocalArtifactRepository, other: Path, tmp_path: Path
) -> None:
    (tmp_path / "artifacts" / "1" / "models" / "M-1" / "artifacts").mkdir(parents=True)
    repository.log_artifact(str(other / "aaa.txt"), "1/models/M-1/artifacts")
    assert not (model / "aaa.txt").exists()


def test_a_neighbour_with_a_similar_name_may_be_written(
    model: Path, repository: LocalArtifactRepository, other: Path
) -> None:
    repository.log_artifacts(str(other), "1/models/m-10/artifacts")
    repository.delete_artifacts("1/models/m-10")
    assert model.exists()


def test_a_model_elsewhere_is_found_by_every_kind_of_source(
    store: Any, tmp_path: Path, repository: LocalArtifactRepository, other: Path
) -> None:
    for number, spell in enumerate((str, lambda p: f"file://{p}", lambda p: f"file://{p}/")):
        root = tmp_path / "artifacts" / str(number)
        root.mkdir(parents=True)
        store.create_registered_model(f"m{number}")
        store.create_model_version(f"m{number}", spell(root))
        refused(lambda number=number: repository.log_artifact(str(other / "aaa.txt"), f"{number}/new"))


def test_a_registration_is_known_at_once_and_ends_with_its_version(
    store: Any, model: Path, repository: LocalArtifactRepository, other: Path
) -> None:
    path = str(other / "aaa.txt")
    store.create_registered_model("again")
    version = store.create_model_version("again", str(model)).version
    store.delete_model_version("chat", "1")
    refused(lambda: repository.log_artifact(path, "1/models/m-1/artifacts"))
    store.delete_model_version("again", str(version))
    repository.log_artifact(path, "1/models/m-1/artifacts")
    assert (model / "aaa.txt").exists()


def test_an_unreachable_registry_refuses(model: Path, tmp_path: Path, other: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    made = guarded(LocalArtifactRepository(str(tmp_path / "artifacts")), WriteGuard(engine))
    assert "does not answer" in refused(lambda: made.log_artifact(str(other / "aaa.txt"), "2"))


def test_azure_hands_out_no_addresses_that_can_write_a_whole_file(store: Any) -> None:
    made: Any = guarded(
        AzureBlobArtifactRepository("wasbs://box@account.blob.core.windows.net/x", client=object()),
        WriteGuard(store.engine),
    )
    with pytest.raises(MlflowException, match="Multipart upload is not supported"):
        made.create_multipart_upload("weights.bin", 1, "1")


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_spellings_of_one_place_are_one(names: list[str]) -> None:
    names = [name for name in names if name not in {".", ".."}] or ["x"]
    for base in ("s3://bucket", "mlflow-artifacts:"):
        plain = place_of(base).below("/".join(names))
        assert place_of(base).below("/./".join(names)) == plain == place_of(base).below("//".join(names) + "/")
        assert plain in list(plain.below("more/below").upwards())


def test_one_place_under_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DESTINATION, f"file://{tmp_path}/a")
    expected = place_of(str(tmp_path / "a" / "1" / "x"))
    for uri in ("mlflow-artifacts:/1/x", "mlflow-artifacts://host:5000/1/x", "http://h/ml/api/2.0/mlflow-artifacts/artifacts/1/x",
                f"file://{tmp_path}/a/1/x", f"file://{tmp_path}/%61/1/x/"):  # fmt: skip
        assert place_of(uri) == expected
    assert place_of("wasbs://box@acc.blob.core.windows.net/p") == place_of("abfss://box@acc.dfs.core.windows.net/p")
    with pytest.raises(ArtifactError, match="leads out"):
        place_of("s3://bucket/a/../b")


def test_whoever_takes_a_folder_alone_waits_for_writers_and_keeps_them_out(store: Any, tmp_path: Path) -> None:
    locks, folder = FolderLocks(store.engine), place_of(str(tmp_path / "model"))
    order: list[str] = []
    writing, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with FolderLocks(store.engine).writing([folder.below("weights.bin")]):
            writing.set()
            may_end.wait(30)
            order.append("written")

    def write_later() -> None:
        with FolderLocks(store.engine).writing([folder.below("more.bin")]):
            order.append("written later")

    first, later = threading.Thread(target=write), threading.Thread(target=write_later)
    first.start()
    writing.wait(30)
    threading.Timer(0.2, may_end.set).start()
    with locks.alone(folder):
        order.append("judged")
        later.start()
        time.sleep(0.2)
        order.append("decided")
    first.join()
    later.join()
    assert order == ["written", "judged", "decided", "written later"]


def test_a_deletion_above_and_an_upload_elsewhere(store: Any, tmp_path: Path) -> None:
    """Deleting a folder that holds the model excludes; uploading to its neighbour does not."""
    folder = place_of(str(tmp_path / "1" / "model"))
    deleted, uploaded = threading.Event(), threading.Event()

    def delete() -> None:
        with FolderLocks(store.engine).deleting(Place(folder.store, folder.parts[:-1])):
            deleted.set()

    def upload() -> None:
        with FolderLocks(store.engine).writing([place_of(str(tmp_path / "1" / "neighbour" / "x"))]):
            uploaded.set()

    others = [threading.Thread(target=upload), threading.Thread(target=delete)]
    with FolderLocks(store.engine).alone(folder):
        others[0].start()
        assert uploaded.wait(30)
        others[1].start()
        assert not deleted.wait(0.3)
    assert deleted.wait(30)
    for thread in others:
        thread.join()


def test_nothing_is_written_while_a_creation_is_judged(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Path, skills: Path
) -> None:
    """Before it is registered its files are not protected, and the decision is about them."""
    (tmp_path / "policy.yaml").write_text(
        "schema: quantgov/policy/v1\nname: gated\ngates:\n  g: {checks: [identity]}\nrules:\n"
        '  - models: "*"\n    create: gated\n    destinations: {"@champion": g}\n    other: open\n'
    )
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{database}")
    root = tmp_path / "artifacts" / "m"
    (root / "model").mkdir(parents=True)
    (root / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    repository: Any = guarded(LocalArtifactRepository(str(tmp_path / "artifacts")), WriteGuard(store.engine))
    answers: list[str] = []
    thread = threading.Thread(
        target=lambda: answers.append(refused(lambda: repository.log_artifact(str(other / "aaa.txt"), "m")))
    )
    judge = store._judge_creation

    def judged(*args: Any) -> Any:
        thread.start()
        time.sleep(0.3)
        assert not (root / "aaa.txt").exists() and thread.is_alive()
        return judge(*args)

    store._judge_creation = judged
    store.create_registered_model("chat")
    store.create_model_version("chat", str(root))
    thread.join()
    assert answers and not (root / "aaa.txt").exists()
