"""Ed25519 keys as files: PEM that openssl reads too, the private half for its owner's eyes alone."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError, no_such_file, require
from mlflow_quantgov.evidence.statement import sha256_digest

PASSPHRASE = "QUANTGOV_KEY_PASSPHRASE"  # noqa: S105  (the name of the variable)
_SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo. Source: RFC 8410, section 10.1."""
_KEY_BYTES = 32
_PRIME = 2**255 - 19
_SMALL_ORDER = {
    *(0, 1, _PRIME - 1, _PRIME, _PRIME + 1),
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
}
"""The y of points whose order divides 8: as public keys they accept signatures that anybody can make. Source: RFC 7748, 7."""
_MAX_FILE = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*")


@dataclass(frozen=True)
class PublicKey:
    """The half of a key that everybody may know."""

    der: bytes
    """SubjectPublicKeyInfo."""

    @property
    def id(self) -> str:
        """`sha256:<hex>` of the SubjectPublicKeyInfo: `openssl pkey -pubin -in FILE -outform DER | sha256sum`."""
        return sha256_digest(self.der)

    @property
    def text(self) -> str:
        """Base64 of the SubjectPublicKeyInfo: the lines between a PEM file's marks."""
        return base64.b64encode(self.der).decode()

    @property
    def pem(self) -> str:
        """As a PEM file holds it."""
        return f"-----BEGIN PUBLIC KEY-----\n{self.text}\n-----END PUBLIC KEY-----\n"

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Read what `text` gave.

        Raises:
            ValueError: It is not the base64 of an Ed25519 key.
        """
        try:
            der = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("it is not base64") from error
        if not der.startswith(_SPKI) or len(der) != len(_SPKI) + _KEY_BYTES or base64.b64encode(der).decode() != text:
            raise ValueError("it is not an Ed25519 public key")
        if int.from_bytes(der[len(_SPKI) :], "little") % 2**255 in _SMALL_ORDER:
            raise ValueError("it is a key of small order, for which anybody can sign")
        return cls(der)

    def fits(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half of this key made a signature of a message.

        Raises:
            MissingExtraError: `cryptography` is not installed.
        """
        key = _ed25519().Ed25519PublicKey.from_public_bytes(self.der[len(_SPKI) :])
        try:
            key.verify(signature, message)
        except require("cryptography.exceptions", extra="sign", purpose="verify signatures").InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key, ready to sign."""

    public: PublicKey
    _private: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return bytes(self._private.sign(message))


def make_key(name: str, folder: Path) -> tuple[Path, Path, PublicKey]:
    """Make a key and write both halves; the private one under the passphrase of `QUANTGOV_KEY_PASSPHRASE`, if that is set.

    Args:
        name: What the files are called.
        folder: Where they go; made if it is not there.

    Returns:
        The private file (`NAME.key.pem`, mode 0600), the public file (`NAME.pub.pem`), and the public key.

    Raises:
        UsageError: The name is no file's name, or one of the files is there already.
        MissingExtraError: `cryptography` is not installed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:100]!r} cannot be the name of a key.",
            why="Its files are called after it: letters, digits, `.`, `_` and `-`.",
            fix="quantgov keys new ada",
        )
    private, public = folder / f"{name}.key.pem", folder / f"{name}.pub.pem"
    there = next((path for path in (private, public) if path.exists() or path.is_symlink()), None)
    if there is not None:
        raise UsageError(
            f"{there} exists.",
            why="Nobody could sign with an overwritten key again, and it was perhaps trusted. Nothing was written.",
            fix=f"choose another name: quantgov keys new {name}-2",
        )
    made = _ed25519().Ed25519PrivateKey.generate()
    forms = _serialization()
    secret = os.environ.get(PASSPHRASE, "").encode()
    lock = forms.BestAvailableEncryption(secret) if secret else forms.NoEncryption()
    folder.mkdir(parents=True, exist_ok=True)
    _write_new(private, made.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, lock), 0o600)
    found = _public_of(made)
    _write_new(public, found.pem.encode(), 0o644)
    return private, public, found


def load_signer(path: Path) -> Signer:
    """Read a private key; its passphrase stands in `QUANTGOV_KEY_PASSPHRASE`.

    Raises:
        UsageError: It is not there, not a private Ed25519 key, needs (another) passphrase, or everybody may read it.
        MissingExtraError: `cryptography` is not installed.
    """
    if not path.is_file():
        raise no_such_file(path, "Nothing was signed.")
    forms, ed25519 = _serialization(), _ed25519()
    data = _read(path)
    if b"PRIVATE KEY-----" not in data:
        raise _no_private_key(path)
    locked = b"ENCRYPTED PRIVATE KEY" in data
    secret = os.environ.get(PASSPHRASE, "").encode()
    if locked and not secret:
        raise UsageError(
            f"{path} is locked with a passphrase.",
            why="Nothing was signed.",
            fix=f"read -rs {PASSPHRASE}; export {PASSPHRASE}",
        )
    if not locked and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"Others on this machine may read {path}, and no passphrase protects it.",
            why="Whoever reads a private key can sign in its owner's name. Nothing was signed.",
            fix=f"chmod 600 {path}",
        )
    try:
        loaded = forms.load_pem_private_key(data, password=secret if locked else None)
    except (ValueError, TypeError) as error:
        if not locked:
            raise _no_private_key(path) from error
        raise UsageError(
            f"{path} does not open with the passphrase in {PASSPHRASE}.",
            why="Nothing was signed.",
            fix=f"read -rs {PASSPHRASE}; export {PASSPHRASE}",
        ) from error
    except require("cryptography.exceptions", extra="sign", purpose="read keys").UnsupportedAlgorithm as error:
        raise _not_ed25519(path) from error
    if not isinstance(loaded, ed25519.Ed25519PrivateKey):
        raise _not_ed25519(path)
    return Signer(_public_of(loaded), loaded)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        UsageError: It is not there, or not an Ed25519 public key in PEM.
    """
    if not path.is_file():
        raise no_such_file(path, "No key was read.")
    text = _read(path).decode("utf-8", errors="replace")
    if "PRIVATE KEY" in text:
        raise UsageError(
            f"{path} is a private key.",
            why="Only its owner needs it; whoever trusts a key is given the public half.",
            fix=f"ls {path.parent}/*.pub.pem",
        )
    found = _PEM.fullmatch(text.strip())
    try:
        return PublicKey.from_text("".join(found[1].split()) if found else "")
    except ValueError as error:
        raise UsageError(
            f"{path} is not an Ed25519 public key in PEM.", why="Signatures are Ed25519.", fix="quantgov keys new NAME"
        ) from error


def _public_of(private: Any) -> PublicKey:
    forms = _serialization()
    return PublicKey(private.public_key().public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there, readable by nobody else from its first moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _no_private_key(path: Path) -> UsageError:
    return UsageError(f"{path} is not a private key in PEM.", why="Nothing was signed.", fix="quantgov keys new NAME")


def _not_ed25519(path: Path) -> UsageError:
    return UsageError(f"{path} is not an Ed25519 key.", why="Signatures are Ed25519.", fix="quantgov keys new NAME")


def _ed25519() -> Any:
    return require(
        "cryptography.hazmat.primitives.asymmetric.ed25519", extra="sign", purpose="sign evidence and verify signatures"
    )


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", extra="sign", purpose="read and write keys")
