"""DSSE v1 envelopes around statements, read strictly: one signature, one way to write each byte that is signed.

Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md and envelope.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlflow_quantgov.errors import EvidenceError, one_line
from mlflow_quantgov.evidence.signing.keys import PublicKey, Signer
from mlflow_quantgov.evidence.statement import (
    MAX_STATEMENT_BYTES,
    Statement,
    canonical_json,
    parse_statement,
    statement_of,
    strict_json,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
SIGNATURE_BYTES = 64
_MAX_OTHER_BYTES = 4096
MAX_ENVELOPE_BYTES = 4 * (MAX_STATEMENT_BYTES // 3 + 1) + _MAX_OTHER_BYTES


class _Signed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keyid: str = Field("", max_length=200)
    sig: str = Field(max_length=200)


class _Written(BaseModel):
    """An envelope as JSON spells it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: list[_Signed]


@dataclass(frozen=True)
class Envelope:
    """A statement's bytes, and one signature of them."""

    payload: bytes
    key: str
    """Which key its writer says it is: a hint, by which nobody is believed."""
    signature: bytes

    def fits(self, key: PublicKey) -> bool:
        """Whether a key made the signature.

        Raises:
            MissingExtraError: `cryptography` is not installed.
        """
        return key.fits(self.signature, encoded(self.payload))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of hint, signature and payload."""
        parts = (hashlib.sha256(one).digest() for one in (self.key.encode(), self.signature, self.payload))
        return f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"

    def to_bytes(self) -> bytes:
        """As JSON."""
        signature = {"keyid": self.key, "sig": base64.b64encode(self.signature).decode()}
        payload = base64.b64encode(self.payload).decode()
        return canonical_json({"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": [signature]})


@dataclass(frozen=True)
class Attached:
    """What somebody attached: a statement, and the envelope it came in."""

    statement: Statement
    envelope: Envelope | None = None
    """None where it came bare, signed by nobody."""

    def to_bytes(self) -> bytes:
        """As it is sent and kept."""
        return self.statement.to_bytes() if self.envelope is None else self.envelope.to_bytes()


def encoded(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding, which binds the payload to its type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def sign(statement: Statement, signer: Signer) -> Envelope:
    """Sign the canonical bytes of a statement."""
    return sign_payload(statement.to_bytes(), signer)


def sign_payload(payload: bytes, signer: Signer) -> Envelope:
    """Sign the bytes of an in-toto statement of any kind."""
    return Envelope(payload, signer.public.id, signer.sign(encoded(payload)))


def read_envelope(data: bytes, *, where: str) -> Envelope:
    """Read an envelope from untrusted bytes; what is inside, and whose signature it is, is for the caller to examine.

    Raises:
        EvidenceError: Too large, not JSON, several signatures, another payload type, or base64 that is not canonical.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _unsound(where, f"it has {len(data):,} bytes")
    value = strict_json(data, where=where)
    if not isinstance(value, dict):
        raise _unsound(where, "it is no JSON object")
    return _envelope_of(value, where)


def read_attached(data: bytes, *, where: str = "the statement") -> Attached:
    """Read a statement, bare or in an envelope, from untrusted bytes; whose signature it is, `examine` says.

    Args:
        data: JSON text of an in-toto Statement v1, or of a DSSE envelope with one.
        where: What to call it in an error, usually the file's name.

    Raises:
        EvidenceError: Too large, not JSON, several signatures, another payload type, base64 that is not the one way to
            write its bytes, or what is inside is not a sound statement.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EvidenceError(
            f"{where} has {len(data):,} bytes; at most {MAX_ENVELOPE_BYTES:,} are taken in.",
            why="Reading is bounded so that a hostile statement cannot exhaust the server.",
            fix="Evaluate fewer items per statement.",
        )
    value = strict_json(data, where=where)
    if isinstance(value, dict) and {"payload", "payloadType", "signatures"} & value.keys():
        envelope = _envelope_of(value, where)
        return Attached(parse_statement(envelope.payload, where=f"the payload of {where}"), envelope)
    if len(data) > MAX_STATEMENT_BYTES:
        parse_statement(data, where=where)  # says that it is too large
    return Attached(statement_of(value, where=where))


def _envelope_of(value: dict[str, Any], where: str) -> Envelope:
    try:
        written = _Written.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise _unsound(where, f"{place}: {problem['msg']}") from error
    if written.payload_type != PAYLOAD_TYPE:
        raise _unsound(where, f"its payload type is {written.payload_type[:100]!r}, not {PAYLOAD_TYPE}")
    if len(written.signatures) != 1:
        raise _unsound(
            where, f"it holds {len(written.signatures)} signatures; each is attached in an envelope of its own"
        )
    (one,) = written.signatures
    if one_line(one.keyid) != one.keyid:
        raise _unsound(where, "its keyid is not one line of plain words")
    signature = _bytes_of(one.sig, where, "signature")
    if len(signature) != SIGNATURE_BYTES:
        raise _unsound(where, f"its signature has {len(signature)} bytes, an Ed25519 signature has {SIGNATURE_BYTES}")
    return Envelope(_bytes_of(written.payload, where, "payload"), one.keyid, signature)


def _bytes_of(text: str, where: str, what: str) -> bytes:
    """Decode base64, in either alphabet of RFC 4648 as DSSE allows, from the only text that encodes those bytes."""
    found = None
    for encode, characters in ((base64.b64encode, b"+/"), (base64.urlsafe_b64encode, b"-_")):
        try:
            decoded = base64.b64decode(text, altchars=characters, validate=True)
        except (binascii.Error, ValueError):
            continue
        if encode(decoded).decode() == text:
            found = decoded
            break
    if found is None:
        raise _unsound(where, f"its {what} is not canonical base64")
    return found


def _unsound(where: str, problem: str) -> EvidenceError:
    return EvidenceError(
        f"{where} is not a sound DSSE envelope: {problem}.",
        why="A signature vouches for exact bytes, so there must be one way to read them.",
        fix="sign it again: quantgov attach models:/NAME/VERSION STATEMENT.json --key NAME.key.pem",
    )
