"""What the routes of the JSON API take and give: the one place, from which requests are checked and OpenAPI is made."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.pages.reading import read_body, read_query, validated

LONGEST_NAME = 8192
"""Characters; SQLite holds names as long as anybody likes, so that this is no rule about names but a bound of requests."""
LINES = "application/x-ndjson"
Route = TypeVar("Route", bound=Callable[..., Any])


def is_storable(text: str) -> bool:
    """Whether every database can be asked about a text: PostgreSQL takes none with a NUL, nobody half of a character."""
    return not any(sign == "\0" or unicodedata.category(sign) == "Cs" for sign in text)


def is_number(text: str) -> bool:
    """Whether a text is the number of a version, as MLflow's column could hold it."""
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("it holds a NUL or half of a character")
    return text


Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_storable)]
Number = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
"""A version's number, as text."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VersionRequest(_Part):
    """About one version."""

    name: Name
    version: Number


class StatementRequest(VersionRequest):
    """A statement to be taken in."""

    statement: Annotated[str, Field(min_length=1)]
    """JSON text of an in-toto statement or of a DSSE envelope with one."""


class DrawRequest(VersionRequest):
    """Which evaluation is to be measured again in part."""

    statement: Annotated[str, Field(max_length=200), AfterValidator(_storable)] | None = None
    """Digest of the evaluation, or how it begins; the one that counts most where nothing is said."""


class CheckRequest(VersionRequest):
    """What would be asked for."""

    to: Name
    """`@alias` or a stage."""


class LedgerQuery(BaseModel):
    """Which rows of the ledger."""

    model: Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_storable)] | None = None
    limit: Annotated[int, Field(ge=0, le=999_999_999)] = 100
    """How many, newest first; at most 10,000 are given."""


class PointersQuery(BaseModel):
    """Of which registered model."""

    model: Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_storable)] | None = None


class VerifyQuery(BaseModel):
    """Of which rows the hash is given too."""

    rows: Annotated[str, Field(pattern=r"^([0-9]{1,9}(,[0-9]{1,9})*)?$", max_length=20_000)] = ""
    """Numbers with commas between them."""


class PolicyStatus(_Part):
    """The policy in force."""

    name: str
    digest: str
    mode: Literal["enforce", "observe"]
    observing: list[str]
    """Globs of the rules that only observe."""


class KeysStatus(_Part):
    """The trusted keys."""

    digest: str
    count: int
    lacking: list[str]
    """Roles that the policy asks for and no key has."""
    too_few: dict[str, int]
    """Roles by which more people have to approve than have a key, and how many that are."""


class Status(_Part):
    """What stands in front of the registry."""

    gated: Literal[True]
    version: str
    policy: PolicyStatus
    keys: KeysStatus
    store: str


class PolicyText(_Part):
    """The policy as it was read."""

    name: str
    digest: str
    text: str


class KeysText(_Part):
    """The trusted keys as a file holds them."""

    digest: str
    text: str


class Signer(_Part):
    """Whose signature came with a statement."""

    key: str
    name: str
    roles: list[str]
    standing: str


class TakenIn(_Part):
    """A statement that was taken in."""

    kind: str
    statement_digest: str
    subject: str
    attached: Literal[True]
    signed_by: list[Signer]


class Drawn(_Part):
    """What decides which items are measured again."""

    statement: str
    content: str
    seed: str
    drawn_for: str
    drawn_at: str


class DecisionAnswer(BaseModel):
    """A decision with every outcome."""

    decision: Literal["allowed", "refused"]
    destination: str
    model: str
    version: str
    decision_id: str
    policy: dict[str, Any]
    checks: list[dict[str, Any]]
    self_audit: list[dict[str, Any]]
    waived: list[str]
    labels: list[str]
    summary: str


class StandingAnswer(_Part):
    """How a version came to where it stands, by the ledger."""

    model: str
    version: str
    destination: str
    how: Literal["approved", "inherited", "observed", "renamed", "unknown", "re-created", "re-pointed"]
    believed: bool
    words: str
    since: str | None
    by: str | None
    decision_id: str | None
    manifest: str | None
    policy: str | None
    grace_until: str | None
    days_left: int | None


class Pointers(_Part):
    """Everything at protected aliases and stages."""

    pointers: list[StandingAnswer]


class Rechecked(_Part):
    """A decision of today beside how the version came there."""

    standing: StandingAnswer
    decision: DecisionAnswer
    altered: bool


class RecordedBody(BaseModel):
    """What the ledger keeps of one entry: a whole decision, or what was recorded."""

    model_config = ConfigDict(extra="allow")

    decision_id: str


class Row(BaseModel):
    """One entry of the ledger, without its body."""

    seq: int
    decision_id: str
    created_at: str
    kind: str
    model: str | None
    version: str | None
    destination: str | None
    decision: str | None
    actor: str | None
    actor_source: str | None
    policy_digest: str | None
    row_hash: str
    workspace: str
    """MLflow's workspace in which the model lies."""
    about: str | None
    waived: list[str]


class Rows(_Part):
    """Entries of the ledger, newest first."""

    rows: list[Row]


class WrongPointer(_Part):
    """A pointer that stands where the ledger does not say that it stands."""

    model: str
    destination: str
    version: str
    problem: str
    workspace: str


class Chain(_Part):
    """Whether the ledger's chain is unbroken, and the registry agrees with it."""

    ok: bool
    rows: int
    first_bad: int | None
    first_hash: str
    last_hash: str
    hashes: dict[str, str]
    pointers: list[WrongPointer]


class Record(_Part):
    """Everything that a decision rests on."""

    decision_id: str
    body: dict[str, Any]
    policy: str
    facts: str
    statements: dict[str, str]


class Triggers(_Part):
    """Which triggers the database should have, and has."""

    ok: bool
    expected: int
    present: int
    missing: list[str]
    changed: list[str]
    mode: str | None
    policy: str | None


class ReachAnswer(_Part):
    """Who else can write to the database, past the gate."""

    outcome: Literal["pass", "fail", "inconclusive"]
    words: str
    fix: str


class DeploymentAnswer(_Part):
    """What stands around the gate."""

    time: str
    mlflow: str
    database: str
    write_once: bool
    login: str | None
    reach: ReachAnswer
    stale: str | None
    """Why this process decides nothing until it is started again."""


class Problem(_Part):
    """What happened, why it matters, how to mend it."""

    message: str
    why: str
    fix: str
    exit_code: int | None = None
    """What the `quantgov` command exits with; 4 where something was tampered with."""


class ErrorAnswer(_Part):
    """Every answer that is no success."""

    error: Problem


class AnyObject(BaseModel):
    """An object of which nothing more is said here."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class Contract:
    """Of one route."""

    summary: str
    gives: type[BaseModel]
    takes: type[BaseModel] | None
    query: type[BaseModel] | None
    lines: bool
    """Whether a success is many objects, one a line."""


def route_contract(
    summary: str,
    *,
    gives: type[BaseModel],
    takes: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    lines: bool = False,
) -> Callable[[Route], Route]:
    """Check each request of a route before the route sees it, and keep what it gives for the document.

    Args:
        summary: One line about the route.
        gives: What a success looks like.
        takes: What the body has to be; None for a route without one.
        query: What the query may hold.
        lines: Whether a success is many objects, one a line.
    """

    def attach(route: Route) -> Route:
        @functools.wraps(route)
        def checked(**names: str) -> Any:
            if not all(map(is_storable, names.values())):
                raise UsageError("The address holds a NUL.", why="Nothing is called that.", fix="quantgov audit log")
            if takes is not None:
                validated(takes, read_body(), "body")
            if query is not None:
                validated(query, read_query(), "query", strict=False)
            return route(**names)

        checked.contract = Contract(summary, gives, takes, query, lines)  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return attach
