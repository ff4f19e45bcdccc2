"""Read the files of every registered version again, and compare them with what was decided, logged and archived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest, build_manifest
from mlflow_quantgov.errors import EvidenceError, QuantgovError
from mlflow_quantgov.evidence.predicates import Archive
from mlflow_quantgov.evidence.signing import read_attached
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.flavor.download import model_artifact, search_versions
from mlflow_quantgov.flavor.layout import MANIFEST_FILE, SavedModel
from mlflow_quantgov.gate.clients.decided import Decided, newest_decided
from mlflow_quantgov.gate.clients.interface import Gate
from mlflow_quantgov.gate.facts.addresses import PROMPT
from mlflow_quantgov.gate.facts.contents import loading_problem
from mlflow_quantgov.gate.facts.copies import copies_below
from mlflow_quantgov.gate.facts.registries import ClientRegistry
from mlflow_quantgov.gate.facts.sources import VersionRef, local_files

_FLAGGED = "tag.`mlflow.prompt.is_prompt` = 'true'"
_NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
Found = TypeVar("Found")
MOST_NAMED = 5
"""Files that are named of one version."""


@dataclass(frozen=True)
class Reread:
    """What one version's files are now."""

    model: str
    version: str
    outcome: Literal["pass", "fail", "inconclusive"]
    """`inconclusive` where nobody decided and nothing was written down, or the files cannot be read."""
    detail: str
    files: tuple[str, ...] = ()
    """Paths inside the version's folder that are not what they were."""


def deep_check(gate: Gate | None, client: mlflow.MlflowClient | None = None) -> Iterator[Reread]:
    """Every registered version in turn; its files are downloaded anew, past every cache.

    Args:
        gate: Whose decisions count; None compares with what was written down at logging alone.
        client: Of the registry; None for the one that MLflow is set to.
    """
    client = client or mlflow.MlflowClient()
    # Past the client's own look at the flag, which has it say that there is no such model.
    behind = client._get_registry_client()
    registry = ClientRegistry(behind)
    for name in dict.fromkeys((*_models(client, None), *_models(client, _FLAGGED))):
        refs = {ref.version: ref for ref in (*registry.references(name), *_hidden(behind, registry, name))}
        for ref in sorted(refs.values(), key=lambda one: int(one.version)):
            found = _version(gate, ref)
            # A prompt has no files, and nobody has decided on it.
            if found.outcome != "inconclusive" or not _is_prompt(ref):
                yield found


def _models(client: mlflow.MlflowClient, query: str | None) -> Iterator[str]:
    token: Any = None
    while True:
        page = client.search_registered_models(query, max_results=1000, page_token=token)
        yield from (one.name for one in page)
        token = page.token
        if not token:
            return


def _hidden(client: Any, registry: ClientRegistry, name: str) -> Iterator[VersionRef]:
    """Versions that MLflow's search leaves out: one that is flagged as a prompt hides every version of its model.

    Whoever may tag a version can set that flag, so it says nothing about what lies there.
    """
    flagged = search_versions(lambda query, **given: client.search_model_versions(_also(query), **given), name)
    for one in flagged:
        yield registry.of(one)
    if not flagged:
        return
    model = _there(lambda: client.get_registered_model(name))
    newest = max((int(one.version) for one in model.latest_versions), default=0) if model is not None else 0
    for number in range(1, newest + 1):
        if (found := _there(partial(registry.reference, name, str(number)))) is not None:
            yield found


def _there(ask: Callable[[], Found]) -> Found | None:
    """The answer; None where there is no such thing (deleted, or flagged). A server that does not answer hides nothing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        return None


def _also(query: str | None) -> str:
    return f"{query} AND {_FLAGGED}" if query else _FLAGGED


def _is_prompt(ref: VersionRef) -> bool:
    return ref.source == PROMPT


def _version(gate: Gate | None, ref: VersionRef) -> Reread:
    decided = None
    try:
        decided = newest_decided(gate, ref.name, ref.version, ref.creation_time) if gate else None
        with local_files(ref, None) as root:
            return _compared(ref, root, decided)
    except (QuantgovError, MlflowException, OSError) as error:
        problem = error.what if isinstance(error, QuantgovError) else f"{type(error).__name__}: {str(error)[:200]}"
        # What was approved was there then.
        return Reread(ref.name, ref.version, "fail" if decided else "inconclusive", problem)


def _compared(ref: VersionRef, root: Path, decided: Decided | None) -> Reread:
    folder = root if root.is_dir() else root.parent
    altered = _altered_copies(folder) if root.is_dir() else ()
    recorded = SavedModel(root).manifest() if (root / MANIFEST_FILE).is_file() else None
    if recorded is None and decided is None:
        outcome: Literal["fail", "inconclusive"] = "fail" if altered else "inconclusive"
        return Reread(
            ref.name, ref.version, outcome, "nobody decided on it, and nothing was written down at logging", altered
        )
    artifact = model_artifact(root) if root.is_dir() else root
    now = build_manifest(artifact)
    wanted = decided.manifest if decided else recorded.digest if recorded else ""
    whose = f"what was approved for {decided.destination}" if decided else "what was logged"
    if now.digest != wanted:
        known = next((one for one in _manifests(root, recorded) if one.digest == wanted), None)
        changed = _differences(known, now, _inside(artifact, root)) if known else ()
        if recorded is not None and recorded.digest != wanted:
            changed = (MANIFEST_FILE, *changed)
        named = f": {', '.join(changed[:MOST_NAMED])}" if changed else "; no list of its files is left to name them"
        return Reread(ref.name, ref.version, "fail", f"the files are not {whose}{named}", (*changed, *altered))
    if recorded is not None and recorded.digest != wanted:
        return Reread(
            ref.name, ref.version, "fail", f"{MANIFEST_FILE} is not that of the files", (MANIFEST_FILE, *altered)
        )
    problem = loading_problem(root, SavedModel(root).files) if recorded is not None else None
    if problem is not None:
        return Reread(ref.name, ref.version, "fail", problem, ("MLmodel", *altered))
    if altered:
        return Reread(ref.name, ref.version, "fail", f"altered: {', '.join(altered[:MOST_NAMED])}", altered)
    return Reread(ref.name, ref.version, "pass", f"{len(now.files)} files are {whose}")


def _manifests(root: Path, recorded: Manifest | None) -> Iterator[Manifest]:
    """Lists of the files as they were: the one beside them, and those of archives."""
    if recorded is not None:
        yield recorded
    copies, _ = copies_below(root) if root.is_dir() else ((), ())
    for name, data in copies:
        try:
            content = read_attached(data, where=name).statement.content()
        except EvidenceError:
            continue
        if isinstance(content, Archive):
            files = tuple(FileEntry(one.path, one.size, one.sha256) for one in content.files)
            yield Manifest(files, "")


def _differences(before: Manifest, now: Manifest, prefix: str) -> tuple[str, ...]:
    """Paths that are missing, new, or of other bytes."""
    then, there = ({one.path: one for one in manifest.files} for manifest in (before, now))
    return tuple(f"{prefix}{path}" for path in sorted(then.keys() | there.keys()) if then.get(path) != there.get(path))


def _inside(artifact: Path, root: Path) -> str:
    """What stands in front of a path of the model's files, inside the version's folder."""
    folder = artifact if artifact.is_dir() else artifact.parent
    inner = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else ""
    return "" if inner in {"", "."} else f"{inner}/"


def _altered_copies(root: Path) -> tuple[str, ...]:
    """Copies of statements that are not what their names say; their folder, where some are nothing that anybody reads."""
    copies, unread = copies_below(root)
    found = [EVIDENCE_FOLDER] if unread else []
    for name, data in copies:
        try:
            if copy_name(read_attached(data, where=name)) == name:
                continue
        except EvidenceError:
            pass
        found.append(f"{EVIDENCE_FOLDER}/{name}")
    return tuple(found)
