"""What a check may read. Gathered by the gate (or by `qg.check`) before any transaction; plain data from here on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.weights import json_digest
from mlflow_quantgov.checkpoint import Checkpoint, with_checkpoint
from mlflow_quantgov.evidence.predicates import Lookup, Predicate, Reproduction, Training
from mlflow_quantgov.evidence.signing import Role as TrustRole
from mlflow_quantgov.evidence.signing import Signature
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.lineage import Lineage, ModelFacts, with_reproduction
from mlflow_quantgov.policy.noted import Noted

Role = Literal["parent", "quantized", "other", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """One statement that was taken in, with how we know it."""

    statement: Statement
    content: Predicate
    """What it says; sides on which it is silent hold what was noted."""
    digest: str
    actor: str | None
    """Who attached it; None for a statement found only as an artifact."""
    received_at: datetime | None = None
    """UTC, by the gate's clock; None where nothing is gated."""
    signatures: tuple[Signature, ...] = ()
    """Who signed it, and what that is worth by the keys that are trusted now."""
    verified: bool = False
    """Whether the server's own authentication has checked that `actor` is who attached it."""
    noted: Noted | None = None
    """Which configuration and tokenizer imported records are of, by the version that they were first attached to; None for
    everything else, for rows of before this was noted, and where nothing is gated."""

    @property
    def kind(self) -> str:
        """`task-eval`, `fidelity`, ..."""
        return self.statement.kind

    @property
    def subject(self) -> str:
        """Weights digest that the statement is about."""
        return self.statement.subject_digest

    def signed_by(self, role: TrustRole) -> Signature | None:
        """The first valid signature by a key with a role."""
        return next((one for one in self.signatures if one.is_valid and role in one.roles), None)

    @property
    def marks(self) -> frozenset[str]:
        """What identifies it and its signatures, to see whether either has changed."""
        return frozenset({self.digest, *(f"{self.digest} {one.received_at}" for one in self.signatures)})

    @property
    def rank(self) -> tuple[bool, datetime, datetime]:
        """Sorts what counts last: see docs/adr/0005 and docs/adr/0012.

        A statement that a measurer vouches for ranks above every other, by the date that the measurer signed; of the rest,
        the one that the gate received last, whatever date it claims.
        """
        measured = self.content.provenance.measured_at
        received = self.received_at or measured
        vouched = self.signed_by("measurer") is not None
        return vouched, measured if vouched else received, received


@dataclass(frozen=True)
class Draw:
    """What decides which items of an evaluation somebody measures again; kept by the gate, and never drawn a second time."""

    statement: str
    """Digest of the evaluation."""
    seed: str
    actor: str
    """For whom it was drawn, in the form in which names are compared."""
    drawn_at: datetime


@dataclass(frozen=True)
class Sibling:
    """Another registered version of the same parent, with the task evaluations of it that were taken in."""

    uri: str
    model: ModelFacts
    """Its own files."""
    evidence: tuple[Evidence, ...]
    aside: tuple[Evidence, ...] = ()
    """Evaluations that do not count under the gate that is asked, since nobody whom it believes has signed them."""
    spot_checks: tuple[Evidence, ...] = ()
    """Of those evaluations."""

    @property
    def narrowest_bits(self) -> float | None:
        """Width of its narrowest quantized matrix; None for full precision."""
        return narrowest_bits(self.model.quantization)


@dataclass(frozen=True)
class Facts:
    """Everything that is known about one version at one moment."""

    name: str
    version: str
    role: Role
    now: datetime
    """UTC; what expiries are compared with."""
    requester: str | None = None
    requester_verified: bool | None = None
    """Whether a login has checked the requester's name; None where nobody can tell."""
    model: ModelFacts | None = None
    """None where the files hold no language model, or cannot be read."""
    recorded_manifest: str | None = None
    """Manifest digest written when the model was logged; None where it was logged by another flavor."""
    lineage: Lineage | None = None
    target: Target | None = None
    recipe: Recipe | None = None
    """How it was quantized, as written down at logging."""
    kernel: Lookup | None = None
    """What the gate's own kernel table says of these weights on this target."""
    checkpoint: Checkpoint | None = None
    """What the newest training statement names, compared with parent and version; None where nobody states a training,
    or no gate asks for one."""
    other_checkpoints: tuple[Checkpoint, ...] = ()
    """What the newest training statement of each role names beside it: gates believe different people."""
    siblings: tuple[Sibling, ...] = ()
    """Evaluated versions of the same parent that are wide enough; gathered where this one is narrow."""
    generic_set: str | None = None
    """Generic calibration set that the files' own metadata name."""
    evidence: tuple[Evidence, ...] = ()
    draws: tuple[Draw, ...] | None = None
    """What was drawn of the evaluations in the evidence, siblings' included; None on a client, which cannot know."""
    created: int | None = None
    """When this version was created (MLflow's milliseconds), since its number may be given away again."""
    source: str | None = None
    """What it was created from, as MLflow says."""
    location: str | None = None
    """Where clients download its files from."""
    files_at: str | None = None
    """The address of its files, with names of logged models resolved; None where nobody knows it."""
    seen: tuple[tuple[str, str, int, str], ...] = ()
    """Name, version, creation time and source of every registered version that was looked at."""
    logged_by: str | None = None
    """Who created it; None where nobody recorded that."""
    holders: tuple[tuple[TrustRole, str], ...] = ()
    """Role and name of whoever has a key that may vouch now."""
    keys: str = ""
    """Digest of the keys that are trusted; empty where nobody is."""
    problems: tuple[str, ...] = field(default=())
    """Altered copies, unreadable files: each refuses by the identity check, and is shown whole."""

    @property
    def original(self) -> ModelFacts | None:
        """The full-precision parent's own files; a parent is its own. None where they cannot be read."""
        if self.role == "parent":
            return self.model
        return self.lineage.parent if self.lineage else None

    def of_kind(self, kind: str, subject: str | None = None) -> tuple[Evidence, ...]:
        """Evidence of a kind about a subject (default: this model's weights), what counts most last."""
        digest = subject or (self.model.weights if self.model else None)
        found = [one for one in self.evidence if one.kind == kind and one.subject == digest]
        return tuple(sorted(found, key=lambda one: one.rank))


def narrowest_bits(found: Quantization) -> float | None:
    """Width of the narrowest quantized matrix, by inspection: a mixture is as bold as its boldest; None for full precision."""
    return None if found.bits is None else min((layer.bits for layer in found.layers), default=found.bits)


def training_of(facts: Facts, role: TrustRole | None = None) -> Evidence | None:
    """The training statement about these weights that counts most; of those that somebody with a role signed, where one is given."""
    for one in reversed(facts.of_kind(Training.KIND)):
        if isinstance(one.content, Training) and (role is None or one.signed_by(role)):
            return one
    return None


def named_by(training: Evidence | None) -> tuple[str, str] | None:
    """Where the checkpoint of a training statement is registered, and which weights it says that it holds."""
    content = training.content if training else None
    return (content.checkpoint_uri, content.checkpoint) if isinstance(content, Training) else None


def relinked(facts: Facts) -> Facts:
    """The link to the parent by the evidence that is left: what rests on a statement that does not count is taken back.

    The comparisons of weights stand, whoever asked for them.
    """
    wanted = named_by(training_of(facts))
    known = (facts.checkpoint, *facts.other_checkpoints)
    checkpoint = next((one for one in known if one is not None and one.named == wanted), None)
    facts, lineage = replace(facts, checkpoint=checkpoint), facts.lineage
    if lineage is None:
        return facts
    if lineage.through is not None and lineage.through.named != wanted and lineage.direct is not None:
        lineage = lineage.direct
    if checkpoint is not None:
        lineage = with_checkpoint(lineage, checkpoint)
    facts = replace(facts, lineage=lineage)
    if lineage.level == "reproduced" and not was_reproduced(facts):
        return replace(facts, lineage=replace(lineage, level="numeric"))
    if lineage.level == "numeric" and was_reproduced(facts):
        return replace(facts, lineage=with_reproduction(lineage))
    return facts


def reproductions(facts: Facts) -> tuple[Evidence, ...]:
    """The newest run of every recipe on this very parent (or on the trained checkpoint that was rounded); those that gave the same bytes come last.

    Where a recipe was recorded, only that one counts; another that makes something else says nothing about it.
    """
    parent = facts.lineage.rounded_from if facts.lineage else None
    newest: dict[str, Evidence] = {}
    for one in facts.of_kind(Reproduction.KIND):
        content = one.content
        if not isinstance(content, Reproduction) or parent is None:
            continue
        if facts.recipe is not None and content.recipe != facts.recipe:
            continue
        if (content.weights, content.parent) == (one.subject, parent.weights):
            recipe = json_digest(content.recipe.model_dump(mode="json"))
            newest.pop(recipe, None)
            newest[recipe] = one
    return tuple(sorted(newest.values(), key=_gave_the_same_bytes))


def was_reproduced(facts: Facts) -> bool:
    """Whether the last run of some recipe gave the same bytes."""
    return any(_gave_the_same_bytes(one) for one in reproductions(facts))


def _gave_the_same_bytes(one: Evidence) -> bool:
    return bool(one.content.recompute()["outcome"] == "pass")
