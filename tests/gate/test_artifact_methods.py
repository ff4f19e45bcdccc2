"""Every method of MLflow's artifact repositories is judged: a new one fails here until somebody has looked at it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import mlflow.store.artifact as package
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

from mlflow_quantgov.gate.write_once.artifact_repo import WriteOnce

GUARDED = {
    "log_artifact", "log_artifacts", "log_artifact_from_stream", "log_artifact_from_async_stream", "delete_artifacts",
    "create_multipart_upload", "complete_multipart_upload", "upload_archived_trace_data_bytes",
    "create_presigned_upload_url", "upload_trace_data", "upload_archived_trace_data", "upload_attachment",
}  # fmt: skip
HANDLED_ELSEWHERE = {
    "flush_async_logging",  # the queue's handler, made in `__init__`, calls `log_artifact`
}
READ = {
    "list_artifacts", "download_artifacts", "download_trace_data", "download_trace_data_to_file",
    "download_archived_trace_data", "download_trace_attachment", "download_trace_attachment_to_file", "get_local_path",
    "get_download_presigned_url",
}  # fmt: skip
HARMLESS = {
    "abort_multipart_upload",  # throws away parts, which are no file yet
    "get_s3_file_upload_extra_args", "parse_s3_compliant_uri", "parse_gcs_uri", "parse_wasbs_uri", "parse_runs_uri",
    "parse_s3_uri", "get_underlying_uri", "is_runs_uri", "is_models_uri", "split_models_uri", "resolve_uri", "max_workers",
    "chunk_thread_pool", "artifact_dir", "databricks_profile_uri", "convert_to_s3_uri", "parse_b2_uri", "is_dir",
    "sftp", "get_ftp_client", "full_path", "files_api", "convert_r2_uri_to_s3_endpoint_url", "is_run_uri",
    "convert_b2_uri_to_s3_endpoint_url", "is_logged_model_uri", "convert_b2_uri_to_s3_uri",
}  # fmt: skip
JUDGED = GUARDED | HANDLED_ELSEWHERE | READ | HARMLESS


def kinds() -> Iterator[type]:
    """Every repository and mixin that MLflow ships."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:
            continue  # of a store whose library is not installed
        for _, kind in inspect.getmembers(loaded, inspect.isclass):
            if kind.__module__.startswith(package.__name__) and (
                issubclass(kind, ArtifactRepository) or kind.__name__.endswith("Mixin")
            ):
                yield kind


def public(kind: type) -> set[str]:
    """Methods and properties that MLflow's own classes define."""
    own = [one for one in kind.__mro__ if one.__module__.startswith("mlflow.")]
    return {name for one in own for name in vars(one) if not name.startswith("_")}


def test_every_public_method_is_judged() -> None:
    found = {name for kind in kinds() for name in public(kind)}
    assert sorted(found - JUDGED) == []


def test_what_is_guarded_is_overridden_and_exists_in_mlflow() -> None:
    found = {name for kind in kinds() for name in public(kind)}
    assert {name for name in GUARDED if name not in vars(WriteOnce)} == set()
    assert found >= GUARDED, "a renamed method would be guarded under its old name only"


def test_the_queue_ends_in_a_guarded_method() -> None:
    assert "self.log_artifact(" in inspect.getsource(ArtifactRepository.__init__)


def test_the_registry_s_dictionary_is_the_one_that_is_asked() -> None:
    """The guard is put into it; a copy would guard nothing."""
    assert get_registered_artifact_repositories() is get_registered_artifact_repositories()


def test_the_signatures_that_are_overridden_are_those_of_mlflow() -> None:
    for name in GUARDED - {"create_multipart_upload", "complete_multipart_upload"}:
        owner = next(
            getattr(one, name)
            for one in (ArtifactRepository, artifact_repo.StreamUploadMixin, artifact_repo.PresignedUploadMixin)
            if hasattr(one, name)
        )
        theirs, ours = (list(inspect.signature(one).parameters) for one in (owner, getattr(WriteOnce, name)))
        assert theirs == ours
