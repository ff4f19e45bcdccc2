"""Keys, envelopes, and what a signature is worth: whatever was altered is refused, or says the very same."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import EvidenceError, PolicyError, UsageError
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.signing import (
    NO_KEYS,
    PublicKey,
    Signer,
    TrustedKey,
    TrustedKeys,
    examine,
    load_signer,
    load_trusted_keys,
    make_key,
    parse_trusted_keys,
    read_attached,
    read_public_key,
    refuse_bad,
    sign,
    write_trusted_keys,
)
from mlflow_quantgov.evidence.signing import envelope as module
from mlflow_quantgov.evidence.signing.envelope import encoded
from mlflow_quantgov.evidence.statement import Statement

SUBJECT = "sha256:" + "c" * 64
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SAME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Somebody with a key."""
    private, _, _ = make_key("ada", tmp_path_factory.mktemp("keys"))
    return load_signer(private)


@pytest.fixture
def statement(task_eval: Callable[..., TaskEval]) -> Statement:
    return Statement.about(SUBJECT, task_eval([1, 0], [1, 1]), name="m")


def trusted(signer: Signer, **changes: Any) -> TrustedKeys:
    values = {"id": signer.public.id, "public_key": signer.public.text, "name": "ada", "roles": ("measurer",),
              "not_before": NOW - 10 * DAY}  # fmt: skip
    return TrustedKeys(keys=(TrustedKey(**(values | changes)),))


def test_the_files_are_what_openssl_reads(tmp_path: Path) -> None:
    private, public, made = make_key("ada", tmp_path)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    openssl = ["openssl", "pkey", "-in", str(private), "-pubout"]
    assert subprocess.run(openssl, capture_output=True, check=True).stdout == public.read_bytes()
    der = subprocess.run([*openssl, "-outform", "DER"], capture_output=True, check=True).stdout
    assert PublicKey(der).id == made.id == read_public_key(public).id == load_signer(private).public.id


def test_the_signed_bytes_are_those_of_the_dsse_specification(tmp_path: Path, statement: Statement) -> None:
    """Verified by openssl, which knows nothing of this package."""
    private, public, _ = make_key("ada", tmp_path)
    made = json.loads(sign(statement, load_signer(private)).to_bytes())
    payload = base64.b64decode(made["payload"])
    assert payload == statement.to_bytes() and made["payloadType"] == "application/vnd.in-toto+json"
    (tmp_path / "pae").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(made["signatures"][0]["sig"]))
    verify = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        str(public),
        "-rawin",
        "-in",
        "pae",
        "-sigfile",
        "sig",
    ]
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_a_passphrase_locks_the_private_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGOV_KEY_PASSPHRASE", "correct horse")
    private, _, made = make_key("ada", tmp_path)
    assert load_signer(private).public == made
    monkeypatch.setenv("QUANTGOV_KEY_PASSPHRASE", "wrong")
    with pytest.raises(UsageError, match="does not open"):
        load_signer(private)
    monkeypatch.delenv("QUANTGOV_KEY_PASSPHRASE")
    with pytest.raises(UsageError, match="locked with a passphrase"):
        load_signer(private)


@pytest.mark.parametrize("name", ["../ada", "", "-x", "a b", "a" * 65])
def test_a_name_that_is_no_file_name_makes_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a key"):
        make_key(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_readable_by_others_is_used(tmp_path: Path) -> None:
    private, public, _ = make_key("ada", tmp_path)
    before = private.read_bytes()
    private.rename(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"ada\.pub\.pem exists"):
        make_key("ada", tmp_path)
    assert not private.exists()
    private.write_bytes(before)
    private.chmod(0o644)
    with pytest.raises(UsageError, match="Others on this machine may read"):
        load_signer(private)
    with pytest.raises(UsageError, match="not a private key"):
        load_signer(public)
    with pytest.raises(UsageError, match="is a private key"):
        read_public_key(private)
    rsa = tmp_path / "rsa"
    subprocess.run(["openssl", "genrsa", "-out", str(rsa), "2048"], check=True, capture_output=True)
    rsa.chmod(0o600)
    with pytest.raises(UsageError, match="is not an Ed25519 key"):
        load_signer(rsa)


def test_a_key_for_which_anybody_can_sign_is_no_key() -> None:
    """The neutral point: one signature fits every message under it, as the library has it."""
    der = bytes.fromhex("302a300506032b6570032100") + (1).to_bytes(32, "little")
    assert PublicKey(der).fits((1).to_bytes(32, "little") + bytes(32), b"whatever")
    with pytest.raises(ValueError, match="anybody can sign"):
        PublicKey.from_text(PublicKey(der).text)


def test_a_statement_in_an_envelope_survives_the_round_trip(statement: Statement, signer: Signer) -> None:
    read = read_attached(sign(statement, signer).to_bytes())
    assert read.statement == statement and read.envelope is not None
    found = examine(read.envelope, trusted(signer), NOW, NOW)
    assert (found.key, found.name, found.standing) == (signer.public.id, "ada", "valid")
    assert read_attached(statement.to_bytes()).envelope is None


@SAME
@given(data=st.data())
def test_no_flipped_byte_gives_another_statement_or_another_signer(
    statement: Statement, signer: Signer, data: st.DataObject
) -> None:
    made = sign(statement, signer).to_bytes()
    place = data.draw(st.integers(0, len(made) - 1))
    edited = made[:place] + bytes([made[place] ^ data.draw(st.integers(1, 255))]) + made[place + 1 :]
    try:
        read = read_attached(edited)
    except EvidenceError:
        return
    assert read.envelope is not None
    found = examine(read.envelope, trusted(signer), NOW, NOW)
    # Only the hint may differ: it says nothing, and the signature is found to be the same person's.
    assert found.standing == "bad" or (read.statement == statement and found.key == signer.public.id)


@SAME
@given(data=st.data())
def test_no_flipped_bit_of_what_is_signed_or_of_the_signature_fits(
    statement: Statement, signer: Signer, data: st.DataObject
) -> None:
    made = sign(statement, signer)
    what = data.draw(st.sampled_from(["payload", "signature"]))
    old = getattr(made, what)
    bit = data.draw(st.integers(0, 8 * len(old) - 1))
    new = bytearray(old)
    new[bit // 8] ^= 1 << bit % 8
    values = {"payload": made.payload, "signature": made.signature} | {what: bytes(new)}
    assert not signer.public.fits(values["signature"], encoded(values["payload"]))


@given(text=st.text(alphabet=st.sampled_from("ABab01+/-_= \n"), max_size=12))
def test_bytes_are_written_in_base64_in_one_way(text: str) -> None:
    try:
        found = module._bytes_of(text, "x", "payload")
    except EvidenceError:
        return
    assert text in {base64.b64encode(found).decode(), base64.urlsafe_b64encode(found).decode()}


@given(
    value=st.recursive(
        st.none() | st.text() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_whatever_is_sent_is_read_or_refused_in_one_line(value: Any) -> None:
    for sent in (value, {"payload": value, "payloadType": value, "signatures": [value]}):
        with pytest.raises(EvidenceError) as raised:
            read_attached(json.dumps(sent).encode())
        assert "\n" not in str(raised.value)


def edited(made: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(made) | changes).encode()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda made: edited(made, signatures=json.loads(made)["signatures"] * 2), "2 signatures"),
        (lambda made: edited(made, signatures=[]), "0 signatures"),
        (lambda made: edited(made, payloadType="application/json"), "payload type"),
        (lambda made: edited(made, payload=json.loads(made)["payload"] + "\n"), "canonical base64"),
        (lambda made: edited(made, payload=json.loads(made)["payload"].rstrip("=") + "===="), "canonical base64"),
        (lambda made: edited(made, signatures=[{"keyid": "k", "sig": "AAAA"}]), "3 bytes"),
        (lambda made: edited(made, signatures=[{"keyid": "a\x00b", "sig": "AAAA"}]), "plain words"),
        (lambda made: edited(made, signatures=[{"keyid": "\ud800", "sig": "AAAA"}]), "half of a character"),
        (lambda made: edited(made, more=1), "more"),
        (lambda made: edited(made, signatures=[{"keyid": "k", "sig": "AAAA", "cert": ""}]), "cert"),
        (lambda made: made.replace(b'{"payload":', b'{"payload":"","payload":', 1), "twice"),
        (lambda made: edited(made, payload=base64.b64encode(b'{"a": 1, "a": 1}').decode()), "twice"),
        (lambda made: edited(made, payload=base64.b64encode(b"[]").decode()), "not an in-toto statement"),
        (lambda made: made[:-1], "not an in-toto statement"),
    ],
)
def test_what_is_not_one_sound_envelope_is_refused(
    statement: Statement, signer: Signer, edit: Callable[[bytes], bytes], words: str
) -> None:
    with pytest.raises(EvidenceError, match=words) as raised:
        read_attached(edit(sign(statement, signer).to_bytes()))
    assert "Fix:" in str(raised.value)


def test_an_envelope_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch, statement: Statement) -> None:
    monkeypatch.setattr(module, "MAX_ENVELOPE_BYTES", 100)
    with pytest.raises(EvidenceError, match="at most 100 are taken in"):
        read_attached(statement.to_bytes())


def test_another_tools_spelling_of_the_statement_and_of_the_key_is_believed(
    statement: Statement, signer: Signer
) -> None:
    """The signature is over the bytes as they came, and the key's name is a hint."""
    payload = json.dumps(json.loads(statement.to_bytes()), indent=2).encode()
    signature = base64.urlsafe_b64encode(signer.sign(encoded(payload))).decode()
    made = {"payloadType": module.PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": "ada's key", "sig": signature}]}  # fmt: skip
    read = read_attached(json.dumps(made).encode())
    assert read.statement == statement and read.envelope is not None
    assert examine(read.envelope, trusted(signer), NOW, NOW).key == signer.public.id


@pytest.mark.parametrize(
    ("changes", "received", "standing"),
    [
        ({}, NOW, "valid"),
        ({"not_before": NOW}, NOW - DAY, "not-yet-valid"),
        ({"not_before": NOW}, NOW, "valid"),
        ({"until": NOW - DAY}, NOW - 2 * DAY, "valid"),
        ({"until": NOW - DAY}, NOW - DAY, "expired"),
        ({"until": NOW + DAY}, NOW, "valid"),
        ({"revoked_at": NOW - DAY, "reason": "lost"}, NOW, "revoked"),
        ({"revoked_at": NOW - DAY, "reason": "lost"}, NOW - 2 * DAY, "revoked"),
        ({"revoked_at": NOW + DAY, "reason": "lost"}, NOW, "valid"),
    ],
)
def test_a_signature_is_worth_what_its_key_is(
    statement: Statement, signer: Signer, changes: dict[str, Any], received: datetime, standing: str
) -> None:
    assert examine(sign(statement, signer), trusted(signer, **changes), received, NOW).standing == standing


def test_an_unknown_key_is_untrusted_and_a_known_one_that_did_not_sign_is_refused(
    tmp_path: Path, statement: Statement, signer: Signer
) -> None:
    made = sign(statement, signer)
    assert examine(made, NO_KEYS, NOW, NOW).standing == "untrusted"
    other = load_signer(make_key("eve", tmp_path)[0])
    posing = module.Envelope(made.payload, signer.public.id, sign(statement, other).signature)
    found = examine(posing, trusted(signer), NOW, NOW)
    assert found.standing == "bad"
    with pytest.raises(EvidenceError, match="not one of ada over these bytes"):
        refuse_bad(found, trusted(signer), "s.json")


def test_the_keys_file_survives_the_round_trip_and_has_one_digest(tmp_path: Path, signer: Signer) -> None:
    keys = trusted(signer, until=NOW + DAY, revoked_at=NOW, reason="laptop lost")
    write_trusted_keys(tmp_path / "keys.yaml", keys)
    read = load_trusted_keys(tmp_path / "keys.yaml")
    assert read == keys and read.digest == keys.digest and read.digest.startswith("sha256:")
    assert [path.name for path in tmp_path.iterdir()] == ["keys.yaml"]
    assert load_trusted_keys(None).digest == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("roles:", "rolls:", "did you mean 'roles'"),
        ("- measurer", "- boss", "measurer"),
        ("name: ada", "name: |\n    a\n    b", "one line"),
        ("id: sha256:", "id: sha256:0", "not the id of its public key"),
        ("not_before: '2026", "not_before: '2026-01-01'\n  until: '2025", "timezone|valid"),
        ("public_key: M", "public_key: N", "Ed25519|base64"),
        ("keys:\n", "keys:\n- *x\n", "aliases"),
    ],
)
def test_a_wrong_keys_file_is_one_clear_error(signer: Signer, old: str, new: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as raised:
        parse_trusted_keys(trusted(signer).to_text().replace(old, new, 1), source="keys.yaml")
    assert "keys.yaml" in raised.value.what and "Fix:" in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"until": NOW - 20 * DAY},
        {"revoked_at": NOW},
        {"reason": "x"},
        {"roles": ("measurer", "measurer")},
        {"roles": ()},
    ],
)
def test_a_key_that_contradicts_itself_is_refused(signer: Signer, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        trusted(signer, **changes)


def test_one_key_stands_once(signer: Signer) -> None:
    (one,) = trusted(signer).keys
    with pytest.raises(ValueError, match="stands twice"):
        TrustedKeys(keys=(one, one))
