"""From a model URI to files on this machine, downloaded once."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_quantgov.artifact.manifest import Manifest, build_manifest
from mlflow_quantgov.errors import UnreachableError, UsageError, is_silence, no_answer
from mlflow_quantgov.flavor.layout import MANIFEST_FILE, SavedModel, sole_model_file
from mlflow_quantgov.lineage import ModelFacts, facts_of

_VERSION_URI = re.compile(r"^models:/(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[^/]+))$")
_MOST_DIGITS = 9
_LOGGED_URI = re.compile(r"^models:/(?P<id>m-[0-9a-f]+)$")


@dataclass(frozen=True)
class LocalModel:
    """A registered or logged model whose files lie on this machine."""

    uri: str
    """`models:/NAME/VERSION` where it is registered, else what was asked for."""
    root: Path
    artifact: Path
    """What `inspect` and the runtimes read: a folder or one file."""
    model_id: str | None
    """LoggedModel (`m-...`); None where the version's source is something else."""
    version: ModelVersion | None

    def manifest(self) -> Manifest:
        """Digests of the files as they lie here."""
        return build_manifest(self.artifact)

    def facts(self) -> ModelFacts:
        """Digests and inspection of the files as they lie here."""
        return facts_of(self.artifact)


def cache_folder() -> Path:
    """Where downloads, twins and cached answers lie: `QUANTGOV_CACHE`, else the user's cache folder."""
    given = os.environ.get("QUANTGOV_CACHE")
    base = Path(given) if given else Path.home() / ".cache" / "mlflow-quantgov"
    base.mkdir(parents=True, exist_ok=True)
    return base


def find_version(uri: str) -> ModelVersion | None:
    """The registered version behind `models:/NAME/VERSION` or `models:/NAME@ALIAS`; None for other URIs.

    Raises:
        UsageError: There is no such version or alias.
        UnreachableError: The registry does not answer.
    """
    found = _VERSION_URI.match(uri)
    if not found or _LOGGED_URI.match(uri):
        return None
    if (found["version"] or "").isdigit() and len(found["version"]) > _MOST_DIGITS:
        raise UsageError(
            f"There is no {uri[:100]}.", why="No registry counts that far.", fix=_models_fix(found["name"])
        )
    client = mlflow.MlflowClient()
    try:
        if found["version"] == "latest":
            numbers = [int(one.version) for one in search_versions(client.search_model_versions, found["name"])]
            if not numbers:
                raise UsageError(
                    f"MLflow finds no version of {found['name']}.",
                    why="Of a model without versions, or with one that is flagged as a prompt, it lists none.",
                    fix=_models_fix(found["name"]),
                )
            return client.get_model_version(found["name"], str(max(numbers)))
        if found["alias"]:
            return client.get_model_version_by_alias(found["name"], found["alias"])
        if not found["version"].isdigit():
            latest = client.get_latest_versions(found["name"], stages=[found["version"]])
            if not latest:
                raise UsageError(
                    f"No version of {found['name']} is in the stage {found['version']}.",
                    fix=f"quantgov check models:/{found['name']}/1 --to {found['version']}",
                )
            return latest[0]
        return client.get_model_version(found["name"], found["version"])
    except MlflowException as error:
        raise _explain(uri, error) from error


def search_versions(search: Callable[..., Iterable[Any]], name: str) -> list[Any]:
    """Every version of a model, whatever its name holds: MLflow's filter knows no way to write both kinds of quotes.

    Args:
        search: `search_model_versions` of a client or a store.
        name: Registered model.
    """
    mark = "'" if "'" not in name else '"'
    query = f"name = {mark}{name}{mark}" if mark not in name else None
    return [one for one in search(query, max_results=10_000) if one.name == name]


def local_model(uri: str) -> LocalModel:
    """Files of a model URI, on this machine.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/m-...`, `runs:/...`, or a saved folder.

    Raises:
        UsageError: The URI names nothing.
        UnreachableError: The server does not answer.
    """
    version = find_version(uri)
    if version is None:
        _refuse_half_a_uri(uri)
    source = version.source if version is not None else uri
    logged = _LOGGED_URI.match(source or "")
    model_id = logged["id"] if logged else None
    try:
        root = _download_logged(model_id, version) if model_id else Path(_download(uri))
    except MlflowException as error:
        raise _explain(uri, error) from error
    known = f"models:/{version.name}/{version.version}" if version is not None else uri
    return LocalModel(known, root, model_artifact(root), model_id, version)


def _refuse_half_a_uri(uri: str) -> None:
    """Refuse what looks like the name of a version, and is not spelled like one."""
    bare = uri.removeprefix("models:").strip("/")
    if uri.startswith("models:") and not _LOGGED_URI.match(uri) and not re.match(r"^m-[0-9a-f]{32}$", bare):
        raise UsageError(f"{uri} names no version.", why="A model has many.", fix=_models_fix(bare.split("/")[0]))
    if not uri.startswith(("models:", "runs:")) and "://" not in uri and not Path(uri).exists():
        fix = f"models:/{bare}" if re.match(r"^[^/]+/\d+$", bare) else _models_fix(bare.split("/")[-1])
        raise UsageError(f"{uri} is neither a folder nor a version.", why="A version is named by a URI.", fix=fix)


def _models_fix(name: str) -> str:
    return f"models:/{name or 'NAME'}/1, with the number that the registry shows"


def model_artifact(root: Path) -> Path:
    """The model itself inside a downloaded folder, whatever flavor logged it."""
    if (root / MANIFEST_FILE).is_file():
        return SavedModel(root).artifact
    for inner in ("model", "components/model", "model.sentence_transformer"):
        if (root / inner).is_dir():
            return sole_model_file(root / inner) or root / inner
    return root


def _download_logged(model_id: str, version: ModelVersion | None) -> Path:
    repository = get_artifact_repository(_location_of(model_id, version))
    if isinstance(repository, LocalArtifactRepository):
        return Path(repository.download_artifacts(""))
    kept = cache_folder() / "models" / model_id
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            fresh = Path(scratch) / model_id
            fresh.mkdir()
            fresh = Path(repository.download_artifacts("", str(fresh)))
            shutil.rmtree(fresh / "quantgov" / "evidence", ignore_errors=True)
            fresh.replace(kept)
    return kept


def _location_of(model_id: str, version: ModelVersion | None) -> str:
    """Where the files lie: by the version itself where there is one, since its LoggedModel may have been deleted."""
    client = mlflow.MlflowClient()
    if version is not None:
        location = str(client.get_model_version_download_uri(version.name, version.version))
        if not location.startswith("models:"):
            return location
    return str(client.get_logged_model(model_id).artifact_location)


def _download(uri: str) -> str:
    return str(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def _explain(uri: str, error: MlflowException) -> UsageError | UnreachableError:
    """One clear error for what MLflow raised about a URI."""
    first = str(error.message).splitlines()[0][:300]
    if is_silence(error):
        return no_answer(mlflow.get_tracking_uri())
    if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}:
        return UsageError(
            f"{uri} was not found: {first}",
            why=f"The tracking server is {mlflow.get_tracking_uri()}.",
            fix="check the name and version, and that MLFLOW_TRACKING_URI names the right server",
        )
    return UnreachableError(
        f"{uri} could not be read from {mlflow.get_tracking_uri()}: {first}",
        why="Nothing was changed.",
        fix="quantgov doctor",
    )
