"""Gather everything that is known about one version, before any transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import mlflow
from pydantic import ValidationError
from sqlalchemy import Engine

from mlflow_quantgov.artifact.derivation import Descent
from mlflow_quantgov.artifact.inspect import inspect_model
from mlflow_quantgov.artifact.quantization import Inspection
from mlflow_quantgov.errors import ArtifactError, EvidenceError, QuantgovError
from mlflow_quantgov.evidence.generic_sets import named_set
from mlflow_quantgov.evidence.kernel_table import lookup
from mlflow_quantgov.evidence.predicates import Waiver
from mlflow_quantgov.evidence.signing import (
    MAX_ENVELOPE_BYTES,
    NO_KEYS,
    Attached,
    Signature,
    TrustedKeys,
    examine,
    read_attached,
    refuse_bad,
)
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.flavor.download import model_artifact, search_versions
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE, LineageRecord, SavedModel
from mlflow_quantgov.gate.actor import current_actor
from mlflow_quantgov.gate.contents import loading_problem, other_problem, weights_below
from mlflow_quantgov.gate.descent import descent_of
from mlflow_quantgov.gate.intake import kept, take_in
from mlflow_quantgov.gate.sources import VersionRef, local_files, path_here
from mlflow_quantgov.lineage import Lineage, ModelFacts, facts_of, prove, with_reproduction
from mlflow_quantgov.policy.facts import Evidence, Facts, Role, was_reproduced

_PARENT_URI = re.compile(r"^models:/(?P<name>[^/@]+)/(?P<version>\d+)$")


class Registry(Protocol):
    """What gathering needs of a registry: the store on the server, a client elsewhere."""

    def reference(self, name: str, version: str) -> VersionRef:
        """One version."""

    def references(self, name: str) -> Iterable[VersionRef]:
        """Every version of a model."""


@dataclass(frozen=True)
class _Read:
    """What one version's files hold."""

    role: Role
    model: ModelFacts | None
    recorded: str | None
    record: LineageRecord | None
    copies: tuple[tuple[str, bytes], ...]
    problems: tuple[str, ...]


@dataclass
class Gatherer:
    """Gathers facts about versions, each anew from the files as they lie there."""

    registry: Registry
    engine: Engine | None
    sessions: Callable[[], Any] | None
    """Context manager that yields a session and commits; None on a client, which keeps nothing."""
    compares: Callable[[str], bool] = lambda name: False
    """Whether the weights of a registered model's versions are compared with their parents'."""
    keys: TrustedKeys = NO_KEYS
    """Whose signatures are believed."""

    def gather(self, name: str, version: str, requester: str | None = None) -> Facts:
        """Everything that is known about a version; what cannot be read is named in `problems`."""
        gathering = _Gathering(self, self.compares(name))
        return gathering.gather(name, version, requester)


class _Gathering:
    """One gathering: the files of a version are read and hashed once, however often it is met on the way."""

    def __init__(self, by: Gatherer, compares: bool) -> None:
        self.registry, self.engine, self.sessions, self.keys = by.registry, by.engine, by.sessions, by.keys
        self.compares = compares
        self._seen: dict[str, _Read] = {}

    def gather(self, name: str, version: str, requester: str | None = None) -> Facts:
        ref = self.registry.reference(name, version)
        facts = Facts(
            name, version, "unknown", datetime.now(UTC), requester, created=ref.creation_time, keys=self.keys.digest
        )
        try:
            found = self._read(ref)
        except QuantgovError as error:
            return replace(facts, problems=(error.what,))
        facts = replace(
            facts, role=found.role, model=found.model, recorded_manifest=found.recorded, problems=found.problems
        )
        if found.model is None:
            return facts
        lineage, parent_copies = self._lineage(name, ref, found)
        role: Role = "quantized" if lineage is not None or found.model.quantization.is_quantized else "parent"
        subjects = {found.model.weights} | ({lineage.parent.weights} if lineage and lineage.parent else set())
        evidence, problems = self._evidence(ref, subjects, found.copies + parent_copies, facts.now)
        target = found.record.target if found.record else None
        facts = replace(
            facts,
            role=role,
            lineage=lineage,
            target=target,
            recipe=found.record.recipe if found.record else None,
            kernel=lookup(found.model.quantization, target) if target else None,
            generic_set=named_set(found.model.quantization.calibration_data),
            evidence=tuple(evidence),
            problems=found.problems + tuple(problems),
        )
        if lineage is not None and was_reproduced(facts):
            return replace(facts, lineage=with_reproduction(lineage))
        return facts

    def _read(self, ref: VersionRef) -> _Read:
        resolved = self._resolved(ref)
        place = resolved.location or resolved.source
        if place not in self._seen:
            self._seen[place] = self._read_files(resolved)
        return self._seen[place]

    def _read_files(self, ref: VersionRef) -> _Read:
        with local_files(ref, self.engine) as root:
            artifact = model_artifact(root) if root.is_dir() else root
            found, problem = _inspect(root, artifact)
            if found is None:
                return _Read("unknown" if problem else "other", None, None, None, (), (problem,) if problem else ())
            recorded, record, problems = _own_files(root)
            return _Read("quantized", facts_of(artifact, found), recorded, record, tuple(_copies(root)), problems)

    def _resolved(self, ref: VersionRef) -> VersionRef:
        """A version that is about to be created as a copy lies where the other one lies; then that is written down."""
        named = _PARENT_URI.match(ref.source or "") if ref.location is None else None
        if not named:
            return ref
        origin = self.registry.reference(named["name"], named["version"])
        return replace(ref, source=origin.source, location=origin.location)

    def _lineage(
        self, name: str, ref: VersionRef, found: _Read
    ) -> tuple[Lineage | None, tuple[tuple[str, bytes], ...]]:
        """The proved link, and the copies of evidence beside the parent."""
        assert found.model is not None
        claimed = found.record.parent if found.record else None
        if claimed is None:
            return (prove(found.model, None, None), ()) if found.model.quantization.is_quantized else (None, ())
        uri = str(claimed.get("uri", ""))
        parent = self._parent(uri)
        model = parent.model if parent else None
        lineage = prove(found.model, model, claimed, self._descent(ref, uri, found.model, model))
        if lineage.parent is None:
            return lineage, ()
        version = self._version_with(name, lineage.parent.weights)
        return replace(lineage, parent_version=version), parent.copies if parent else ()

    def _parent(self, uri: str) -> _Read | None:
        try:
            reference = self._parent_reference(uri)
            return self._read(reference) if reference else None
        except (QuantgovError, mlflow.exceptions.MlflowException):
            return None

    def _parent_reference(self, uri: str) -> VersionRef | None:
        """The version that is named as the parent; nothing but a registered version is looked at."""
        named = _PARENT_URI.match(uri)
        return self.registry.reference(named["name"], named["version"]) if named else None

    def _descent(
        self, ref: VersionRef, uri: str, child: ModelFacts, parent: ModelFacts | None
    ) -> Callable[[], Descent] | None:
        """Compares the weights of both where the policy wants that; None where it does not."""
        origin = self._parent_reference(uri) if self.compares and parent is not None else None
        if origin is None or parent is None:
            return None

        def compared() -> Descent:
            with self._artifact(ref) as here, self._artifact(origin) as there:
                return descent_of(child.manifest, here, parent.manifest, there)

        return compared

    @contextmanager
    def _artifact(self, ref: VersionRef) -> Iterator[Path]:
        """The model's own files of a version."""
        with local_files(self._resolved(ref), self.engine) as root:
            yield model_artifact(root) if root.is_dir() else root

    def _version_with(self, name: str, weights: str) -> str | None:
        """The version of a model whose files hold these weights."""
        for ref in self.registry.references(name):
            try:
                found = self._read(ref) if self._may_hold(ref, weights) else None
            except QuantgovError:
                continue
            if found is not None and found.model is not None and found.model.weights == weights:
                return ref.version
        return None

    def _may_hold(self, ref: VersionRef, weights: str) -> bool:
        """False where the manifest written at logging says otherwise: spares hashing every version of a model."""
        root = path_here(self._resolved(ref), self.engine)
        if root is None or not (root / MANIFEST_FILE).is_file():
            return True
        return SavedModel(root).manifest().weights_digest == weights

    def _evidence(
        self, ref: VersionRef, subjects: set[str], copies: tuple[tuple[str, bytes], ...], now: datetime
    ) -> tuple[list[Evidence], list[str]]:
        """Kept statements, and copies beside the model that nobody attached; altered copies are problems."""
        problems, sound = [], []
        for name, data in copies:
            try:
                attached = read_attached(data, where=name)
                if copy_name(attached) != name:
                    raise EvidenceError(f"{name} has been edited: its digest is now {attached.statement.digest[:19]}.")
                if attached.statement.subject_digest in subjects:
                    sound.append((name, data, self._unkept(attached, name, now)))
            except EvidenceError as error:
                problems.append(f"The copy {EVIDENCE_FOLDER}/{name} was altered: {error.what}")
        if self.sessions is None:
            return _merged([one for _, _, one in sound]), problems
        with self.sessions() as session:
            for name, data, one in sound:
                # A waiver lets something through, so it counts only where it was attached, while its signer looked on.
                if one.kind == Waiver.KIND:
                    continue
                try:
                    take_in(session, ref, data, subjects, self.keys, actor=None, actor_source=None, where=name)
                except EvidenceError as error:
                    problems.append(f"The copy {EVIDENCE_FOLDER}/{name} was not taken in: {error.what}")
            return kept(session, subjects, self.keys, now), problems

    def _unkept(self, attached: Attached, name: str, now: datetime) -> Evidence:
        """A copy as evidence, where nothing is kept: whoever signed it is known, when it was received is not."""
        statement = attached.statement
        signed: tuple[Signature, ...] = ()
        if attached.envelope is not None:
            found = examine(attached.envelope, self.keys, now, now)
            refuse_bad(found, self.keys, name)
            signed = (replace(found, received_at=None),)
        return Evidence(statement, statement.content(), statement.digest, None, None, signed)


def _merged(found: list[Evidence]) -> list[Evidence]:
    """Each statement once, with the signatures of all its copies."""
    merged: dict[str, Evidence] = {}
    for one in found:
        before = merged.setdefault(one.digest, one)
        if before is not one:
            merged[one.digest] = replace(before, signatures=before.signatures + one.signatures)
    return list(merged.values())


def _inspect(root: Path, artifact: Path) -> tuple[Inspection | None, str | None]:
    """What the files are; (None, None) for a model of another kind, (None, problem) where nobody can tell."""
    try:
        found = inspect_model(artifact)
    except ArtifactError as error:
        ours = (root / MANIFEST_FILE).exists()
        problem = error.what if ours else other_problem(root)
        return None, None if problem is None else f"{error.what} {problem}"
    if found.is_language_model or found.quantization.is_quantized:
        return found, None
    # Inspected, and of another kind; but something else in the folder may be what it serves.
    hidden = weights_below(root, but=artifact)
    return None, f"{hidden} holds weights beside the model that was inspected." if hidden else None


def _own_files(root: Path) -> tuple[str | None, LineageRecord | None, tuple[str, ...]]:
    if not (root / MANIFEST_FILE).is_file():
        return None, None, ()
    saved = SavedModel(root)
    try:
        manifest, record = saved.manifest(), saved.lineage() if (root / LINEAGE_FILE).is_file() else None
        problem = loading_problem(root, saved.files)
        return manifest.digest, record, (problem,) if problem else ()
    except (QuantgovError, ValidationError, ValueError) as error:
        return None, None, (f"The files under quantgov/ are wrong: {str(error)[:200]}",)


def _copies(root: Path) -> Iterable[tuple[str, bytes]]:
    for path in sorted((root / EVIDENCE_FOLDER).glob("*.json")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_ENVELOPE_BYTES:
            yield path.name, path.read_bytes()


class ClientRegistry:
    """A registry as a plain MLflow client sees it."""

    def __init__(self, client: mlflow.MlflowClient) -> None:
        """Use a client."""
        self._client = client

    def reference(self, name: str, version: str) -> VersionRef:
        """See `Registry`."""
        found = self._client.get_model_version(name, version)
        return reference_of(found, self._client.get_model_version_download_uri(name, str(found.version)))

    def references(self, name: str) -> Iterable[VersionRef]:
        """See `Registry`."""
        found = search_versions(self._client.search_model_versions, name)
        return [reference_of(one, self._client.get_model_version_download_uri(name, str(one.version))) for one in found]


def reference_of(version: Any, location: str | None) -> VersionRef:
    """What identifies one of MLflow's model versions, and where its files are downloaded from."""
    return VersionRef(version.name, str(version.version), version.source, int(version.creation_timestamp), location)


def gather_client(
    client: mlflow.MlflowClient, name: str, version: str, *, compares: bool = False, keys: TrustedKeys = NO_KEYS
) -> Facts:
    """Facts through a plain client, for `qg.check` and reports where nothing is gated; nothing is kept.

    Args:
        client: A client of the registry.
        name: Registered model.
        version: Its version.
        compares: Whether to compare the weights with the parent's; both models are then read whole.
        keys: Whose signatures are believed.
    """
    gatherer = Gatherer(ClientRegistry(client), None, None, lambda _: compares, keys)
    return gatherer.gather(name, version, current_actor()[0])
