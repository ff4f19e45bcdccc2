"""Gather everything that is known about one version, before any transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from sqlalchemy import Engine

from mlflow_quantgov.artifact.derivation import Descent
from mlflow_quantgov.checkpoint import Checkpoint, examine, with_checkpoint
from mlflow_quantgov.errors import EvidenceError, QuantgovError
from mlflow_quantgov.evidence.generic_sets import named_set
from mlflow_quantgov.evidence.kernel_table import lookup
from mlflow_quantgov.evidence.predicates import PERMISSIONS, Predicate, Training
from mlflow_quantgov.evidence.signing import NO_KEYS, ROLES, TrustedKeys, read_attached
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.flavor.download import model_artifact
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE, SavedModel
from mlflow_quantgov.gate.doors.actor import current_actor
from mlflow_quantgov.gate.facts.copies import merged, unkept
from mlflow_quantgov.gate.facts.descent import Comparison, Found, descent_of, kinship_of
from mlflow_quantgov.gate.facts.registries import ClientRegistry, Registry
from mlflow_quantgov.gate.facts.siblings import Siblings
from mlflow_quantgov.gate.facts.sources import VersionRef, local_files, location_of, path_here, version_named
from mlflow_quantgov.gate.facts.version_files import ReadVersion, claimed_parent, read_version
from mlflow_quantgov.gate.statements.approving import logged_by, with_people
from mlflow_quantgov.gate.statements.draws import with_draws
from mlflow_quantgov.gate.statements.intake import kept, take_in
from mlflow_quantgov.lineage import Lineage, ModelFacts, prove, with_reproduction
from mlflow_quantgov.policy.facts import (
    Evidence,
    Facts,
    Role,
    Sibling,
    named_by,
    narrowest_bits,
    training_of,
    was_reproduced,
)
from mlflow_quantgov.policy.noted import strangers


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
    least_bits: Callable[[str], float] = lambda name: 0.0
    """Width below which versions of a registered model have to show how they were trained."""
    claims: dict[VersionRef, list[tuple[str, str]]] = field(default_factory=dict)
    """What versions of other models say of their parents: each is fetched once."""

    def gather(self, name: str, version: str, requester: str | None = None) -> Facts:
        """Everything that is known about a version; what cannot be read is named in `problems`."""
        gathering = _Gathering(self, self.compares(name), self.least_bits(name))
        facts = gathering.gather(name, version, requester)
        return replace(facts, seen=tuple(gathering.met))

    def claimed_parent(self, ref: VersionRef) -> list[tuple[str, str]]:
        """Name and version of the parent that was written down at logging, by that one file alone; empty where none was."""
        if ref not in self.claims:
            try:
                named = version_named(str((claimed_parent(ref, self.engine) or {}).get("uri", "")))
            except (QuantgovError, ValueError):
                named = None
            if named is None:
                return []  # and asked again: the store may have been silent
            self.claims[ref] = [named]
        return self.claims[ref]


class _Gathering:
    """One gathering: the files of a version are read and hashed once, however often it is met on the way."""

    def __init__(self, by: Gatherer, compares: bool, least_bits: float) -> None:
        self.registry, self.engine, self.sessions, self.keys = by.registry, by.engine, by.sessions, by.keys
        self.compares, self.least_bits = compares, least_bits
        self._seen: dict[str, ReadVersion] = {}
        self._bare: dict[str, ReadVersion] = {}
        self.met: dict[tuple[str, str, int, str], None] = {}

    def _reference(self, name: str, version: str) -> VersionRef:
        """A version, remembered: what is decided holds only while each stays what it was."""
        ref = self.registry.reference(name, version)
        self.met[(ref.name, ref.version, ref.creation_time, ref.source)] = None
        return ref

    def gather(self, name: str, version: str, requester: str | None = None) -> Facts:
        ref = self._reference(name, version)
        facts = Facts(
            name, version, "unknown", datetime.now(UTC), requester, created=ref.creation_time, keys=self.keys.digest,
            source=ref.source, location=ref.location,
        )  # fmt: skip
        facts = with_people(facts, self.keys, logged_by(self.sessions, ref))
        try:
            found = self._read(ref)
            facts = replace(facts, files_at=location_of(self._resolved(ref), self.engine))
        except QuantgovError as error:
            return replace(facts, problems=(error.what,))
        facts = replace(
            facts, role=found.role, model=found.model, recorded_manifest=found.recorded, problems=found.problems
        )
        if found.model is None:
            return facts
        lineage, parent_copies = self._lineage(name, ref, found)
        role: Role = "quantized" if lineage is not None or found.model.quantization.is_quantized else "parent"
        read = (lineage.parent if lineage else None, found.model)
        behaviours = {one.weights: one.behaviour for one in read if one}
        evidence, problems = self._evidence(ref, behaviours, found.copies + parent_copies, facts.now)
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
        facts = with_draws(self._with_training(ref, facts), self.sessions)
        if facts.lineage is not None and was_reproduced(facts):
            return replace(facts, lineage=with_reproduction(facts.lineage))
        return facts

    def _with_training(self, ref: VersionRef, facts: Facts) -> Facts:
        """What a narrow version rests on: the trained checkpoint, and wider versions that were evaluated before."""
        lineage, bits = facts.lineage, narrowest_bits(facts.model.quantization) if facts.model else None
        if lineage is None or lineage.parent is None or bits is None or not lineage.reaches("structure"):
            return facts
        narrow = bits < self.least_bits
        stated = [training_of(facts, role) for role in (None, *ROLES)] if narrow or self.compares else []
        named = {named_by(one): one.content for one in stated if one is not None}
        checkpoints = tuple(self._checkpoint(ref, facts, content) for content in named.values())
        if checkpoints:
            link = with_checkpoint(lineage, checkpoints[0])
            facts = replace(facts, checkpoint=checkpoints[0], other_checkpoints=checkpoints[1:], lineage=link)
        if narrow:
            facts = replace(facts, siblings=self._siblings(ref, facts, lineage.parent, str(lineage.parent_uri)))
        return facts

    def _siblings(self, ref: VersionRef, facts: Facts, parent: ModelFacts, uri: str) -> tuple[Sibling, ...]:
        """Wider versions of the same parent that were evaluated."""
        origin = self._parent_reference_or_none(uri)

        def stranger(other: VersionRef, model: ModelFacts) -> bool:
            return origin is None or self._compared(kinship_of, other, model, origin, parent).denied

        found = Siblings(
            self.registry,
            self.sessions,
            self._read_bare,
            self._may_have(parent.weights),
            stranger,
            self.keys,
            facts.now,
        )
        return found.of(ref, facts, self.least_bits)

    def _checkpoint(self, ref: VersionRef, facts: Facts, training: Predicate) -> Checkpoint:
        """The version that a training statement names, compared with the parent and with this version."""
        assert isinstance(training, Training) and facts.model and facts.lineage and facts.lineage.parent
        child, original, uri = facts.model, facts.lineage.parent, str(facts.lineage.parent_uri)
        read = self._parent(training.checkpoint_uri)
        model = read.model if read else None
        named = Checkpoint(training.checkpoint_uri, training.checkpoint, original.weights, model)
        there, origin = self._parent_reference_or_none(training.checkpoint_uri), self._parent_reference_or_none(uri)
        if model is None or there is None or origin is None:
            return replace(named, model=None)

        return examine(
            named,
            original,
            lambda: self._compared(kinship_of, there, model, origin, original),
            lambda: self._compared(descent_of, ref, child, there, model),
            lambda: self._compared(descent_of, ref, child, origin, original),
            least_bits=self.least_bits,
        )

    def _compared(
        self, make: Comparison[Found], one: VersionRef, mine: ModelFacts, other: VersionRef, theirs: ModelFacts
    ) -> Found:
        """Compare the files of two versions."""
        with self._artifact(one) as here, self._artifact(other) as there:
            return make(mine.manifest, here, theirs.manifest, there)

    def _read(self, ref: VersionRef) -> ReadVersion:
        resolved = self._resolved(ref)
        place = resolved.location or resolved.source
        if place not in self._seen:
            self._seen[place] = self._read_files(resolved)
        return self._seen[place]

    def _read_bare(self, ref: VersionRef) -> ReadVersion:
        """A version without the copies beside it: of many versions those are too much to hold, and nobody asks for them."""
        resolved = self._resolved(ref)
        place = resolved.location or resolved.source
        if place in self._seen or self.sessions is None:
            return self._read(ref)
        if place not in self._bare:
            self._bare[place] = replace(self._read_files(resolved), copies=())
        return self._bare[place]

    def _read_files(self, ref: VersionRef) -> ReadVersion:
        with local_files(ref, self.engine) as root:
            return read_version(root)

    def _resolved(self, ref: VersionRef) -> VersionRef:
        """A version that is about to be created as a copy lies where the other one lies; then that is written down."""
        named = version_named(ref.source) if ref.location is None else None
        if named is None:
            return ref
        origin = self._reference(*named)
        return replace(ref, source=origin.source, location=origin.location)

    def _lineage(
        self, name: str, ref: VersionRef, found: ReadVersion
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
        version = self._version_like(name, lineage.parent)
        return replace(lineage, parent_version=version), parent.copies if parent else ()

    def _parent(self, uri: str) -> ReadVersion | None:
        reference = self._parent_reference_or_none(uri)
        try:
            return self._read(reference) if reference else None
        except (QuantgovError, mlflow.exceptions.MlflowException):
            return None

    def _parent_reference_or_none(self, uri: str) -> VersionRef | None:
        try:
            return self._parent_reference(uri)
        except (QuantgovError, mlflow.exceptions.MlflowException):
            return None

    def _parent_reference(self, uri: str) -> VersionRef | None:
        """The version that is named as the parent; nothing but a registered version is looked at."""
        named = version_named(uri)
        return self._reference(*named) if named else None

    def _descent(
        self, ref: VersionRef, uri: str, child: ModelFacts, parent: ModelFacts | None
    ) -> Callable[[], Descent] | None:
        """Compares the weights of both where the policy wants that; None where it does not."""
        origin = self._parent_reference(uri) if self.compares and parent is not None else None
        if origin is None or parent is None:
            return None

        return lambda: self._compared(descent_of, ref, child, origin, parent)

    @contextmanager
    def _artifact(self, ref: VersionRef) -> Iterator[Path]:
        """The model's own files of a version."""
        with local_files(self._resolved(ref), self.engine) as root:
            yield model_artifact(root) if root.is_dir() else root

    def _version_like(self, name: str, wanted: ModelFacts) -> str | None:
        """The version of a model that answers as this one: with its weights, and its configuration and tokenizer."""
        for ref in self.registry.references(name):
            try:
                found = self._read_bare(ref) if self._may_hold(ref, wanted.weights) else None
            except QuantgovError:
                continue
            model = found.model if found is not None else None
            if model is not None and (model.weights, model.behaviour) == (wanted.weights, wanted.behaviour):
                self.met[(ref.name, ref.version, ref.creation_time, ref.source)] = None
                return ref.version
        return None

    def _may_hold(self, ref: VersionRef, weights: str) -> bool:
        """False where the manifest written at logging says otherwise: spares hashing every version of a model."""
        root = path_here(self._resolved(ref), self.engine)
        if root is None or not (root / MANIFEST_FILE).is_file():
            return True
        return SavedModel(root).manifest().weights_digest == weights

    def _may_have(self, parent: str) -> Callable[[VersionRef, str], bool]:
        """Whether a version may hold some weights and be made from this parent, by what was written down at logging."""

        def may(ref: VersionRef, weights: str) -> bool:
            try:
                root = path_here(self._resolved(ref), self.engine)
                if root is None or not (root / LINEAGE_FILE).is_file():
                    return root is None
                claimed = SavedModel(root).lineage().parent or {}
                return claimed.get("weights") == parent and self._may_hold(ref, weights)
            except (QuantgovError, ValueError, mlflow.exceptions.MlflowException):
                return False

        return may

    def _evidence(
        self, ref: VersionRef, behaviours: dict[str, str], copies: tuple[tuple[str, bytes], ...], now: datetime
    ) -> tuple[list[Evidence], list[str]]:
        """Kept statements, and copies beside the model that nobody attached; altered copies are problems."""
        problems, sound = [], []
        for name, data in copies:
            try:
                attached = read_attached(data, where=name)
                if copy_name(attached) != name:
                    raise EvidenceError(f"{name} has been edited: its digest is now {attached.statement.digest[:19]}.")
                if attached.statement.subject_digest in behaviours:
                    sound.append((name, data, unkept(attached, self.keys, now, name)))
            except EvidenceError as error:
                problems.append(f"The copy {EVIDENCE_FOLDER}/{name} was altered: {error.what}")
        if self.sessions is None:
            return merged([one for _, _, one in sound]), problems
        with self.sessions() as session:
            for name, data, one in sound:
                # What lets something through counts only where it was attached, while its signer looked on; imported records
                # of a parent with its own parent wait until that version is asked for, which knows both.
                if one.kind in PERMISSIONS or strangers(one.content, behaviours):
                    continue
                try:
                    take_in(session, ref, data, behaviours, self.keys, actor=None, actor_source=None, where=name)
                except EvidenceError as error:
                    problems.append(f"The copy {EVIDENCE_FOLDER}/{name} was not taken in: {error.what}")
            return kept(session, behaviours, self.keys, now), problems


def gather_client(
    client: mlflow.MlflowClient,
    name: str,
    version: str,
    *,
    compares: bool = False,
    keys: TrustedKeys = NO_KEYS,
    least_bits: float = 0.0,
) -> Facts:
    """Facts through a plain client, for `qg.check` and reports where nothing is gated; nothing is kept.

    Args:
        client: A client of the registry.
        name: Registered model.
        version: Its version.
        compares: Whether to compare the weights with the parent's; both models are then read whole.
        keys: Whose signatures are believed.
        least_bits: Width below which a version has to show how it was trained; the checkpoint is then read too.
    """
    gatherer = Gatherer(ClientRegistry(client), None, None, lambda _: compares, keys, lambda _: least_bits)
    return gatherer.gather(name, version, current_actor()[0])
