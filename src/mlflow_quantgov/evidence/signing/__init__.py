"""Who vouches for a statement: Ed25519 keys, DSSE envelopes, and the file that says whose keys are believed."""

from __future__ import annotations

from mlflow_quantgov.evidence.signing.envelope import (
    MAX_ENVELOPE_BYTES,
    Attached,
    Envelope,
    read_attached,
    read_envelope,
    sign,
    sign_payload,
)
from mlflow_quantgov.evidence.signing.keys import PublicKey, Signer, load_signer, make_key, read_public_key
from mlflow_quantgov.evidence.signing.trusted import (
    NO_KEYS,
    ROLES,
    Role,
    Signature,
    TrustedKey,
    TrustedKeys,
    examine,
    load_trusted_keys,
    parse_trusted_keys,
    refuse_bad,
    write_trusted_keys,
)

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "NO_KEYS",
    "ROLES",
    "Attached",
    "Envelope",
    "PublicKey",
    "Role",
    "Signature",
    "Signer",
    "TrustedKey",
    "TrustedKeys",
    "examine",
    "load_signer",
    "load_trusted_keys",
    "make_key",
    "parse_trusted_keys",
    "read_attached",
    "read_envelope",
    "read_public_key",
    "refuse_bad",
    "sign",
    "sign_payload",
    "write_trusted_keys",
]
