"""The file that says whose keys are believed, for what and how long; pure, by clocks that are handed in.

Order of the questions (docs/adr/0012): is the key in the file? does the signature fit? is the key revoked by now? was it
valid when the gate received the signature? A revoked key vouches for nothing, whenever it signed; an expired one still
vouches for what was received before.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from mlflow_quantgov.errors import EvidenceError, one_line
from mlflow_quantgov.evidence.signing.envelope import Envelope
from mlflow_quantgov.evidence.signing.keys import PublicKey
from mlflow_quantgov.evidence.statement import canonical_json
from mlflow_quantgov.yaml_files import FileKind, parse_yaml, read_yaml, validate

Role = Literal["measurer", "approver", "waiver", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)
Standing = Literal["valid", "untrusted", "bad", "not-yet-valid", "expired", "revoked"]
"""What a signature is worth; only `valid` counts for anything."""
MAX_KEYS = 1000
KEYS_FILE = FileKind(
    why="A file that says who is believed must be understood whole, or it believes somebody else.",
    without="No key is trusted without it.",
    schemas=("keys",),
)
_HEADER = """\
# Whose signatures are believed. Written by `quantgov keys trust` and `quantgov keys revoke`; read by the server at start.
"""


def _plain(text: str) -> str:
    if not text.strip() or one_line(text) != text:
        raise ValueError("it is empty, or not one line of plain words")
    return text


Words = Annotated[str, Field(max_length=300), AfterValidator(_plain)]


class TrustedKey(BaseModel):
    """One key: whose it is, what it may vouch for, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """`sha256:<hex>` of the public key's SubjectPublicKeyInfo."""
    public_key: str
    """Base64 of the SubjectPublicKeyInfo: the line between a PEM file's marks."""
    name: Words
    """Who holds it: the name under which MLflow knows that person."""
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    not_before: AwareDatetime
    """Signatures that the gate received earlier do not count."""
    until: AwareDatetime | None = None
    """Signatures that the gate receives from then on do not count."""
    revoked_at: AwareDatetime | None = None
    """From then on nothing that it signed counts, whenever it was received."""
    reason: Words | None = None
    """Why it was revoked."""

    @model_validator(mode="after")
    def _is_sound(self) -> TrustedKey:
        if PublicKey.from_text(self.public_key).id != self.id:
            raise ValueError(f"{self.id[:19]} is not the id of its public key")
        if self.until is not None and self.until <= self.not_before:
            raise ValueError(f"the key of {self.name} ends before it begins")
        if (self.revoked_at is None) != (self.reason is None):
            raise ValueError("revoked_at and reason stand together")
        if len(set(self.roles)) != len(self.roles):
            raise ValueError("a role stands twice")
        return self

    @property
    def public(self) -> PublicKey:
        """The key itself."""
        return PublicKey.from_text(self.public_key)

    def standing(self, received_at: datetime, now: datetime) -> Standing:
        """What a signature of this key is worth.

        Args:
            received_at: When the gate received it, by the gate's clock: what the signer says of the time proves nothing.
            now: When it is asked for.
        """
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        if received_at < self.not_before:
            return "not-yet-valid"
        return "expired" if self.until is not None and received_at >= self.until else "valid"


class TrustedKeys(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["quantgov/keys/v1"] = Field("quantgov/keys/v1", alias="schema")
    keys: Annotated[tuple[TrustedKey, ...], Field(max_length=MAX_KEYS)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> TrustedKeys:
        ids = [one.id for one in self.keys]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"the key {twice[:19]} stands twice")
        return self

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical JSON; empty where no file was named."""
        return f"sha256:{hashlib.sha256(canonical_json(self._as_json())).hexdigest()}" if self.keys else ""

    def find(self, key_id: str) -> TrustedKey | None:
        """The key of an id."""
        return next((one for one in self.keys if one.id == key_id), None)

    def with_role(self, role: Role) -> tuple[TrustedKey, ...]:
        """Keys that may vouch as this, revoked or not."""
        return tuple(one for one in self.keys if role in one.roles)

    def to_text(self) -> str:
        """As the file holds it."""
        return _HEADER + yaml.safe_dump(self._as_json(), sort_keys=False, allow_unicode=True, width=1000)

    def _as_json(self) -> dict[str, object]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


NO_KEYS = TrustedKeys()
"""Nobody is believed."""


@dataclass(frozen=True)
class Signature:
    """Who signed a statement, and what that is worth by the keys that were trusted when it was asked."""

    key: str
    """Id of the trusted key that made it; for an untrusted one, what its writer says."""
    standing: Standing
    name: str = ""
    """Who holds the key; empty where it is not trusted."""
    roles: tuple[Role, ...] = ()
    received_at: datetime | None = None
    """When the gate received it; None where nothing is gated."""
    until: datetime | None = None
    """When the key ends."""

    @property
    def is_valid(self) -> bool:
        """Whether it vouches for anything."""
        return self.standing == "valid"

    @property
    def is_trusted(self) -> bool:
        """Whether a key that stands in the file made it, whatever that is worth."""
        return self.standing not in {"untrusted", "bad"}

    def words(self) -> str:
        """Who it is, for people."""
        return self.name if self.name else f"the untrusted key {one_line(self.key)[:19]}"


def examine(envelope: Envelope, keys: TrustedKeys, received_at: datetime, now: datetime) -> Signature:
    """Whose signature an envelope holds, and what it is worth.

    Args:
        envelope: As it was read.
        keys: Whose keys are believed.
        received_at: When the gate received it.
        now: When it is asked for.

    Raises:
        MissingExtraError: There are trusted keys, and `cryptography` is not installed.
    """
    named = keys.find(envelope.key)
    # The id is a hint (DSSE): a key that is not known under it may be one of ours under another tool's way of naming keys.
    candidates = keys.keys if named is None else (named,)
    signer = next((one for one in candidates if envelope.fits(one.public)), None)
    if signer is None:
        return Signature(envelope.key, "untrusted" if named is None else "bad", received_at=received_at)
    standing = signer.standing(received_at, now)
    return Signature(signer.id, standing, signer.name, signer.roles, received_at, signer.until)


def refuse_bad(signature: Signature, keys: TrustedKeys, where: str) -> None:
    """Refuse a signature that names a trusted key which did not make it.

    Raises:
        EvidenceError: It does not fit: the statement or the signature was altered.
    """
    if signature.standing != "bad":
        return
    named = keys.find(signature.key)
    raise EvidenceError(
        f"The signature of {where} is not one of {named.name if named else 'that key'} over these bytes.",
        why="The statement or its signature was altered after it was signed.",
        fix="have its author attach it again",
    )


def load_trusted_keys(path: str | Path | None) -> TrustedKeys:
    """Read a file of trusted keys; None trusts nobody.

    Raises:
        PolicyError: It does not exist, a key is misspelt, or an id is not that of its public key.
    """
    if path is None:
        return NO_KEYS
    file = Path(path)
    return parse_trusted_keys(read_yaml(file, KEYS_FILE), source=file.name)


def parse_trusted_keys(text: str, *, source: str) -> TrustedKeys:
    """Read trusted keys from text; `source` names it in errors.

    Raises:
        PolicyError: A key is misspelt, or an id is not that of its public key.
    """
    return validate(TrustedKeys, parse_yaml(text, source, KEYS_FILE), source, KEYS_FILE)


def write_trusted_keys(path: Path, keys: TrustedKeys) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(keys.to_text())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
