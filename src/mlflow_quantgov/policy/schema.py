"""The policy file as data; JSON Schema for editors is generated from it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mlflow_quantgov.evidence.predicates import PERMISSIONS, PREDICATES, TaskResult
from mlflow_quantgov.evidence.predicates.base import Digest
from mlflow_quantgov.evidence.signing import Role
from mlflow_quantgov.lineage import ModelFacts
from mlflow_quantgov.policy import stores

CheckName = Literal[
    "identity",
    "lineage",
    "task-eval",
    "calibration",
    "bit-width",
    "kernel-support",
    "benchmark",
    "format-fit",
    "rollback-archive",
    "approvals",
]
CHECKS: tuple[str, ...] = get_args(CheckName)


Width = Annotated[float, Field(gt=0, le=32)]
Budget = Annotated[float, Field(gt=0, lt=1)]


_NUMBERS = (int, float, int | None, float | None)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, given: Any) -> Any:
        """`true` would be read as 1, which nobody means who writes it where a number belongs."""
        for name, value in given.items() if isinstance(given, dict) else ():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            if isinstance(value, bool) and field is not None and field.annotation in _NUMBERS:
                raise ValueError(f"{name}: {str(value).lower()} is no number")
        return given


class CapabilityTask(_Part):
    """A task that measures a capability."""

    task: str
    metric: str | None = None
    """The metric that counts; None for the one that was measured."""
    min_items: int = Field(1, ge=1)
    """Fewer items of this task do not count."""

    def fits(self, task: TaskResult) -> bool:
        """Whether a result is one of this task, by the metric that counts."""
        return self.task == task.task and self.metric in {None, task.metric}


def _named(given: Any) -> Any:
    """A bare name is a task about which nothing more is said."""
    return {"task": given} if isinstance(given, str) else given


def _pinned(given: Any) -> Any:
    """A bare digest is a task about which nothing more is said."""
    return {"digest": given} if isinstance(given, str) else given


def _weighed(given: Any) -> Any:
    """A bare digest is that of a parent's weights, about which nothing more is said."""
    return {"weights": given} if isinstance(given, str) else given


class Capability(_Part):
    """One thing that must not get worse."""

    margin: float = Field(gt=0)
    """Largest tolerated loss, in units of the score."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    min_items: int = Field(1, ge=1)
    discordance: float = Field(0.1, gt=0, le=1)
    """Share of items whose score is expected to change; planning assumes it where no pilot was run."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score of an item; the margin is in the same units, and other scores are not judged."""
    tasks: tuple[
        Annotated[CapabilityTask, BeforeValidator(_named, json_schema_input_type=str | CapabilityTask)], ...
    ] = ()
    """Tasks that measure it: a name, or a name with metric and least number of items; empty: those whose own metadata name it."""

    @model_validator(mode="after")
    def _range_holds_the_margin(self) -> Capability:
        low, high = self.score_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"score_range [{low:g}, {high:g}] is no range from a lower to a higher score")
        if self.margin >= high - low:
            raise ValueError(f"the margin {self.margin:g} tolerates any loss between {low:g} and {high:g}")
        return self


class TaskPin(_Part):
    """A task that counts, by digest; where more is said, that has to hold too."""

    digest: str
    task: str | None = None
    metric: str | None = None
    min_items: int = Field(1, ge=1)
    """Fewer items are not this task: a choice of its items could be a convenient one."""

    def fits(self, task: TaskResult) -> bool:
        """Whether a result is one of this task."""
        return (
            task.task_digest == self.digest
            and self.task in {None, task.task}
            and self.metric in {None, task.metric}
            and len(task.items) >= self.min_items
        )


class ParentPin(_Part):
    """A parent that is allowed: by its weights alone, or whole."""

    weights: str
    """Weights digest."""
    behaviour: Digest | None = None
    """Digest of what decides its answers beside the weights; None: whoever logs it chooses that, and it is shown."""

    @classmethod
    def of(cls, parent: ModelFacts) -> ParentPin:
        """What pins a parent whole."""
        return cls(weights=parent.weights, behaviour=parent.behaviour)

    @property
    def line(self) -> str:
        """As it is pasted into a policy."""
        more = f", behaviour: {self.behaviour}" if self.behaviour else ""
        return f"{{weights: {self.weights}{more}}}"

    @model_serializer(mode="wrap")
    def _as_written(self, whole: SerializerFunctionWrapHandler) -> Any:
        """A bare digest stays one: approvals and kept decisions name policies by a digest that must not change."""
        return self.weights if self.behaviour is None else whole(self)


ParentStanding = Literal["nothing-pinned", "pinned", "weights-pinned", "other-behaviour", "not-allowed"]


class Yardsticks(_Part):
    """What the measured party does not choose; empty means: chosen by the author, and shown as such."""

    parents: tuple[Annotated[ParentPin, BeforeValidator(_weighed, json_schema_input_type=str | ParentPin)], ...] = ()
    """Parents that are allowed: a weights digest, or one with the digest of behaviour."""
    tasks: tuple[Annotated[TaskPin, BeforeValidator(_pinned, json_schema_input_type=str | TaskPin)], ...] = ()
    """Tasks: a digest, or a digest with task, metric and least number of items."""
    production: tuple[str, ...] = ()
    """Digests of production samples."""
    targets: tuple[str, ...] = ()
    """Target digests."""

    def standing_of(self, parent: ModelFacts | None) -> ParentStanding:
        """How far the policy, and not the author, has chosen a parent.

        Where some pin of its weights names a behaviour, a bare one of the same weights allows no other.
        """
        if not self.parents:
            return "nothing-pinned"
        behaviours = {pin.behaviour for pin in self.parents if parent is not None and pin.weights == parent.weights}
        if parent is None or not behaviours:
            return "not-allowed"
        if behaviours == {None}:
            return "weights-pinned"
        return "pinned" if parent.behaviour in behaviours else "other-behaviour"


class CalibrationDemand(_Part):
    """What has to be shown of calibration data, beyond the texts."""

    activations: Literal["required", "where-measured"] = "where-measured"
    """What the parent's layers see: `required`, or judged where the statement holds it."""


class Floors(_Part):
    """What a version has to reach alone, where its parent does not load on the machine that serves."""

    prefill_tokens_per_second: float | None = Field(None, gt=0)
    """Least speed of reading prompts, at every load."""
    decode_tokens_per_second: float | None = Field(None, gt=0)
    """Least speed of writing, all sequences of a batch together, at every load."""
    time_to_first_token_ms: float | None = Field(None, gt=0)
    """Most milliseconds to the first token (median), at every load."""
    peak_memory_gb: float | None = Field(None, gt=0)
    """Most memory that the model takes, in 10^9 bytes."""


class BenchmarkDemand(_Part):
    """What has to be shown of speed and memory, beyond being better than the parent."""

    floors: Floors | None = None
    """Absolute demands for a version whose parent was tried and does not load; None: such a version is not let through."""


class SpotCheckDemand(_Part):
    """How much of a task evaluation somebody else has to have measured again."""

    items: int = Field(20, ge=1)
    """Least number of items; an evaluation of fewer is checked whole."""
    share: float = Field(0.25, gt=0, le=1)
    """A forgery of so many of all items..."""
    risk: float = Field(0.1, gt=0, lt=1)
    """...may have stayed hidden with at most this probability."""


def _spot_check(given: Any) -> Any:
    """`true` asks for the usual one, `false` for none."""
    return {True: {}, False: None}[given] if isinstance(given, bool) else given


class ApprovalsDemand(_Part):
    """How many people have to agree, and who counts; whoever asks never does."""

    count: int = Field(1, ge=1, le=20)
    """Different people."""
    role: Role = "approver"
    """Role that the key of each must have."""
    signed: bool = True
    """`false`: somebody whom the server's own authentication has let in counts too, without a key."""
    within_days: int | None = Field(None, ge=1, le=3650)
    """Age at which an approval expires; None: by its own date alone."""
    people: tuple[str, ...] = ()
    """Names of those who may approve; empty: whoever has the role."""
    not_by: tuple[Literal["measurer", "logger"], ...] = ()
    """Who does not count beside the one who asks: whoever measured what the decision rests on, whoever logged the version."""
    policy: Literal["same", "any"] = "same"
    """`same`: an approval that was given under another policy does not count."""
    asker: Literal["named", "verified"] = "named"
    """`verified`: where no login has checked the name of whoever asks, one approval more is wanted, as for nobody's name."""
    parents: bool = False
    """Whether going back to the full-precision parent needs approvals too."""


def _approvals(given: Any) -> Any:
    """A bare number is so many people about whom nothing more is said; 0 asks for nobody."""
    return ({"count": given} if given else None) if type(given) is int else given


class Gate(_Part):
    """Which checks a destination requires, and how strictly."""

    checks: tuple[CheckName, ...]
    lineage_level: Literal["declared", "digest", "structure", "numeric", "reproduced"] = "structure"
    capabilities: dict[str, Capability] = Field(default_factory=dict)
    """Capabilities that must each be shown not worse."""
    scored_only: bool = False
    """Whether tasks that only score choices may carry a capability alone (they barely move when a model breaks)."""
    calibration: CalibrationDemand = CalibrationDemand()
    """Views of calibration data that a pass needs."""
    benchmark: BenchmarkDemand = BenchmarkDemand()
    """Floors of speed for a version whose parent does not load on the target."""
    least_bits: float = Field(4, ge=0, le=32)
    """Below it, quantization-aware training, a budget and an earlier version at this width or more are required too."""
    budgets: dict[Width, Budget] = Field(default_factory=dict)
    """Width in bits to the largest loss of every capability, as a share of its range of scores. A width between two of them
    has the lower one's; one below all of them has none, and is refused."""
    probe: bool = True
    """Whether the kernel must have been seen in the runtime, not only in the table."""
    drill_days: int = Field(90, ge=1)
    """Age at which a restore drill expires."""
    approvals: Annotated[
        ApprovalsDemand | None, BeforeValidator(_approvals, json_schema_input_type=int | ApprovalsDemand | None)
    ] = None
    """People who have to agree: a number, or more about them; None asks for nobody."""
    signed: dict[str, Role] = Field(default_factory=dict)
    """Kind of evidence (`*`: every other) to the role whose signature it needs; others need none."""
    spot_check: Annotated[
        SpotCheckDemand | None, BeforeValidator(_spot_check, json_schema_input_type=bool | SpotCheckDemand | None)
    ] = None
    """Whether this version's evaluations that a decision rests on have to be measured again in part, by another key; `true`: the usual."""
    asked_by: Literal["anybody", "somebody-else"] = "anybody"
    """`somebody-else`: than who has measured or attached what the decision rests on."""
    author_may_choose: bool = True
    """Whether yardsticks that are not pinned are accepted (and labelled)."""

    def budget_for(self, bits: float) -> float | None:
        """What a narrowest width may cost: the budget of the largest width that is not above it; None where there is none."""
        width = max((one for one in self.budgets if one <= bits), default=None)
        return None if width is None else self.budgets[width]

    @model_validator(mode="after")
    def _kinds_exist(self) -> Gate:
        known = {"*", *PREDICATES} - PERMISSIONS
        unknown = next((kind for kind in self.signed if kind not in known), None)
        if unknown is not None:
            raise ValueError(f"signed: {unknown[:100]!r} is no kind of evidence; known are {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _approvals_are_looked_at(self) -> Gate:
        if self.approvals is not None and "approvals" not in self.checks:
            raise ValueError("approvals are asked for, and `approvals` is not among the checks")
        return self


def _store(given: str) -> str:
    """An address that files can lie below."""
    fault = stores.fault(given)
    if fault is not None:
        raise ValueError(f"{given[:100]!r} {fault}")
    return given


class Rule(_Part):
    """What holds for the registered models whose name matches."""

    models: str = Field(min_length=1, max_length=500)
    """Glob; compared NFKC-casefolded."""
    create: Literal["open", "gated"] = "open"
    """`gated`: creating a version in such a model is itself a promotion."""
    destinations: dict[str, str]
    """`@alias` or stage to a gate's name, `open` or `refuse`."""
    other_destinations: Literal["refuse", "open"] = "refuse"
    other: Literal["open", "refuse"] = "open"
    """What a model without language-model weights gets."""
    mode: Literal["enforce", "observe"] | None = None
    """`observe` records for these models what would be refused, and refuses nothing; None: as the policy says."""
    stores: tuple[Annotated[str, AfterValidator(_store)], ...] = ()
    """Addresses below which the files of a version have to lie; empty: wherever the server can read them."""
    yardsticks: Yardsticks = Yardsticks()

    @model_serializer(mode="wrap")
    def _as_before(self, whole: SerializerFunctionWrapHandler) -> Any:
        """Rules that name no stores have the digest that they had before there were any."""
        return {name: value for name, value in whole(self).items() if name != "stores" or value}


class Inherited(_Part):
    """What holds for pointers that nobody has judged: they stood before the gate, or moved while it only observed."""

    grace_until: date
    """Last day (UTC) on which their versions are loaded; from then on they count as not approved. Nothing is moved."""


class Policy(_Part):
    """The whole policy."""

    schema_: Literal["quantgov/policy/v1"] = Field(alias="schema")
    name: str = Field(min_length=1, max_length=100)
    mode: Literal["enforce", "observe"] = "enforce"
    inherited: Inherited | None = None
    """None: pointers that stood before the gate are loaded for good, those that moved while it observed are not."""
    gates: dict[str, Gate]
    rules: tuple[Rule, ...] = Field(min_length=1)
    text: str = Field("", exclude=True)
    """The file as it was read; no part of the digest."""

    @model_validator(mode="after")
    def _gates_exist(self) -> Policy:
        for rule in self.rules:
            for destination, gate in rule.destinations.items():
                if gate not in {"open", "refuse", *self.gates}:
                    raise ValueError(f"the destination {destination} names the gate {gate!r}, which is not defined")
                named = self.gates.get(gate)
                if rule.create == "gated" and named is not None and named.approvals is not None:
                    # It has no creation time that anybody could approve of, so nothing could ever be created.
                    raise ValueError(
                        f"create: gated and the approvals of the gate {gate!r} exclude each other: nobody can approve of a "
                        "version that does not exist yet"
                    )
                if rule.stores and named is not None and "identity" not in named.checks:
                    raise ValueError(
                        f"stores are named for {rule.models!r}, and `identity`, which looks at them, is not among the checks of "
                        f"the gate {gate!r}"
                    )
        return self

    @property
    def digest(self) -> str:
        """`sha256:...` of the canonical JSON."""
        value = self.model_dump(mode="json", by_alias=True)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
