"""What an auditor finds: an edited row, a cut ledger, a rewritten one, a pointer that nobody allowed, a decision that does not replay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from narrow_releases import Registry, release
from sqlalchemy import text

from mlflow_quantgov.errors import EvidenceError, TamperingError, UsageError
from mlflow_quantgov.evidence.signing import NO_KEYS, TrustedKeys, load_signer, make_key
from mlflow_quantgov.gate.database import triggers
from mlflow_quantgov.gate.ledger import Entry, append
from mlflow_quantgov.gate.ledger.chain import GENESIS, WHOLE, hash_of, walk
from mlflow_quantgov.gate.ledger.checkpoints import LedgerCheckpoint, compare, read, take
from mlflow_quantgov.gate.ledger.export import read as read_rows
from mlflow_quantgov.gate.ledger.export import write
from mlflow_quantgov.gate.ledger.replay import replay
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy


@pytest.fixture
def admin(store: Any) -> Callable[..., None]:
    """Runs statements as somebody who owns the database, and first takes the triggers away."""

    def run(*statements: str) -> None:
        with store.engine.begin() as connection:
            triggers.remove(connection)
            for statement in statements:
                connection.execute(text(statement))

    return run


def entries(store: Any, count: int) -> None:
    with store._sessions.transaction() as session:
        for number in range(count):
            append(session, Entry("statement", "ada", "test", f"m{number}", "1", None, "recorded"))


def rechained(store: Any, changed: int) -> None:
    """Rewrites a row and every hash after it, as somebody would who knows how the chain is made."""
    with store.engine.begin() as connection:
        triggers.remove(connection)
        rows = [dict(row) for row in connection.execute(text("SELECT * FROM quantgov_ledger ORDER BY seq")).mappings()]
        previous = GENESIS
        for row in rows:
            row["actor"] = "mallory" if row["seq"] == changed else row["actor"]
            row["previous_hash"] = previous
            row["row_hash"] = previous = hash_of(row)
            connection.execute(
                text("UPDATE quantgov_ledger SET actor = :actor, previous_hash = :p, row_hash = :r WHERE seq = :seq"),
                {"actor": row["actor"], "p": row["previous_hash"], "r": row["row_hash"], "seq": row["seq"]},
            )


def checkpoint(store: Any, name: str, tmp_path: Path) -> tuple[str, LedgerCheckpoint]:
    signer = load_signer(make_key(name, tmp_path / "people")[0])
    path = tmp_path / f"{name}.json"
    path.write_bytes(take(asdict(store.quantgov_verify()), signer).to_bytes())
    return name, read(path, NO_KEYS, [signer.public])


def compared(store: Any, *points: tuple[str, LedgerCheckpoint]) -> list[tuple[bool, int | None]]:
    found = asdict(store.quantgov_verify([point.seq for _, point in points]))
    return [(one.ok, one.first_bad) for one in compare(found, points)]


def test_a_checkpoint_shows_what_the_chain_alone_does_not(store: Any, admin: Any, tmp_path: Path) -> None:
    entries(store, 3)
    early = checkpoint(store, "early", tmp_path)
    entries(store, 3)
    late = checkpoint(store, "late", tmp_path)
    entries(store, 1)
    assert compared(store, late, early) == [(True, None), (True, None)]
    rechained(store, 6)
    assert store.quantgov_verify().ok  # the chain alone is content
    assert compared(store, early, late) == [(True, None), (False, late[1].seq)]
    admin(f"DELETE FROM quantgov_ledger WHERE seq > {early[1].seq + 1}")
    assert store.quantgov_verify().ok
    assert compared(store, early, late) == [(True, None), (False, early[1].seq + 2)]
    rechained(store, 1)
    assert store.quantgov_verify().ok
    assert compared(store, early, late) == [(False, 1), (False, 1)]


def test_a_checkpoint_by_somebody_who_is_not_trusted_says_nothing(store: Any, tmp_path: Path) -> None:
    entries(store, 1)
    signer = load_signer(make_key("eve", tmp_path / "people")[0])
    path = tmp_path / "c.json"
    made = take(asdict(store.quantgov_verify()), signer)
    path.write_bytes(made.to_bytes())
    with pytest.raises(EvidenceError, match="untrusted key"):
        read(path, NO_KEYS)
    for role, passes in (("measurer", False), ("auditor", True)):
        key = {
            "id": signer.public.id,
            "public_key": signer.public.text,
            "name": "eve",
            "roles": (role,),
            "not_before": "2020-01-01T00:00:00Z",
        }
        keys = TrustedKeys.model_validate({"keys": [key]})
        if passes:
            assert read(path, keys).seq == 2
        else:
            with pytest.raises(EvidenceError, match="role auditor"):
                read(path, keys)
    altered = json.loads(made.to_bytes())
    altered["signatures"][0]["sig"] = altered["signatures"][0]["sig"][::-1].replace("=", "A")[:86] + "=="
    path.write_text(json.dumps(altered))
    with pytest.raises(EvidenceError):
        read(path, NO_KEYS, [signer.public])
    for junk in (b"", b"[]", b"{}", b"x" * 30_000, json.dumps({"payload": "", "payloadType": "x"}).encode()):
        path.write_bytes(junk)
        with pytest.raises(EvidenceError):
            read(path, NO_KEYS, [signer.public])


def test_an_export_is_verified_without_a_server(store: Any, tmp_path: Path) -> None:
    entries(store, 5)
    path = tmp_path / "ledger.jsonl"
    assert write(path, store.quantgov_export()).ok
    rows = list(read_rows(path))
    assert [set(row) for row in rows] == [set(WHOLE)] * 6
    found = walk(read_rows(path), [6])
    assert (found.ok, found.rows, found.hashes) == (True, 6, {6: rows[-1]["row_hash"]})
    for change, bad in (
        (lambda: rows[3] | {"actor": "mallory"}, 4),
        (lambda: rows[3] | {"workspace": "other"}, 4),
        (lambda: rows[3] | {"seq": 5}, 5),
        (lambda: rows[4], 5),
    ):
        altered = [*rows[:3], change(), *rows[4:]]
        path.write_text("\n".join(map(json.dumps, altered)))
        assert walk(read_rows(path)).first_bad == bad
    for junk in ("{", "[]", "{}", '{"seq": NaN}', "null", json.dumps(rows[0] | {"seq": "1"})):
        path.write_text(junk)
        with pytest.raises(UsageError, match="Line 1"):
            walk(read_rows(path))


def test_a_pointer_that_nobody_allowed_is_found(
    store: Any, admin: Any, sklearn_like: Callable[[str], str], database: str
) -> None:
    first, second = sklearn_like("iris"), sklearn_like("iris")
    store.set_registered_model_alias("iris", "champion", first)
    store.set_registered_model_alias("iris", "candidate", second)
    store.transition_model_version_stage("iris", first, "Production", False)
    store.transition_model_version_stage("iris", second, "production", False)
    assert store.quantgov_verify().ok

    def wrong(*statements: str) -> dict[str, str]:
        admin(*statements)
        found = store.quantgov_verify()
        assert found.first_bad is None
        assert found.ok is not bool(found.pointers)
        return {one.destination: one.problem for one in found.pointers}

    moved = "UPDATE registered_model_aliases SET version = {} WHERE alias = 'champion'"
    assert "put it on version 1" in wrong(moved.format(2))["@champion"]
    assert "does not exist" in wrong(moved.format(9))["@champion"]
    assert wrong(moved.format(1)) == {}
    added = (
        "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', 'iris', 'live', 2)"
    )
    assert "no row" in wrong(added)["@live"]
    assert wrong("DELETE FROM registered_model_aliases WHERE alias = 'live'") == {}
    assert "no row" in wrong("UPDATE model_versions SET current_stage = 'Staging' WHERE version = 2")["Staging"]
    assert wrong("UPDATE model_versions SET current_stage = 'Production' WHERE version = 2") == {}
    assert "another version" in wrong("UPDATE model_versions SET source = 'evil' WHERE version = 1")["@champion"]
    # Starting again inherits nothing of that.
    assert not open_store(f"quantgov:{database}").quantgov_verify().ok


def test_moves_of_every_kind_agree_with_the_ledger(store: Any, sklearn_like: Callable[[str], str]) -> None:
    first, second = sklearn_like("iris"), sklearn_like("iris")
    store.set_registered_model_alias("iris", "champion", first)
    store.set_registered_model_alias("iris", "champion", second)
    store.transition_model_version_stage("iris", first, "Production", False)
    store.transition_model_version_stage("iris", second, "Production", True)
    store.transition_model_version_stage("iris", second, "Staging", False)
    assert store.quantgov_verify().ok
    store.delete_registered_model_alias("iris", "champion")
    store.transition_model_version_stage("iris", second, "None", False)
    store.set_registered_model_alias("iris", "candidate", second)
    store.rename_registered_model("iris", "lily")
    store.set_registered_model_alias("lily", "champion", first)
    assert store.quantgov_verify().ok


def test_pointers_that_a_new_policy_protects_are_inherited(
    database: str, store: Any, sklearn_like: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = sklearn_like("iris")
    store.set_registered_model_alias("iris", "candidate", version)
    policy = tmp_path / "policy.yaml"
    assert '"@candidate": open' in load_policy().text
    policy.write_text(load_policy().text.replace('"@candidate": open', '"@candidate": refuse'))
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    again: Any = open_store(f"quantgov:{database}")
    assert again.quantgov_verify().ok
    row = again.quantgov_ledger("iris")[0]
    assert (row["kind"], row["destination"], row["version"]) == ("inherited", "@candidate", version)


def test_a_decision_replays_and_a_forged_one_does_not(store: Any, admin: Any, quantized: str) -> None:
    with pytest.raises(MlflowException, match="quantgov refused"):
        store.set_registered_model_alias("chat", "champion", quantized)
    row = store.quantgov_ledger("chat")[0]
    record = json.loads(json.dumps(store.quantgov_record(row["decision_id"])))
    assert replay(record).same
    assert record["body"]["engine"]
    forged = json.loads(json.dumps(record))
    forged["body"]["decision"] = "allowed"
    found = replay(forged)
    assert (found.same, found.recorded, found.replayed, found.differs) == (False, "allowed", "refused", ("decision",))
    for part, other in (("facts", record["facts"].replace("chat", "cat")), ("policy", record["policy"] + "\n")):
        if part == "facts":
            with pytest.raises(TamperingError, match="digest"):
                replay(record | {part: other})
        else:
            assert replay(record | {part: other}).same  # the digest is over what the policy says
    with pytest.raises(UsageError, match="no decision"):
        store.quantgov_record("nonsense")
    admin("DELETE FROM quantgov_facts")
    with pytest.raises(TamperingError, match="gone"):
        store.quantgov_record(row["decision_id"])


@pytest.mark.parametrize("signer", ["", "ada"])
def test_an_allowed_decision_replays_from_what_was_kept(registry: Callable[..., Registry], signer: str) -> None:
    """With evidence, signatures, a trained checkpoint, comparisons of weights, and a sibling with evidence of its own."""
    found = registry("numeric")
    found.signer = signer
    found.promote(release(found, 2))
    row = found.store.quantgov_ledger("chat")[0]
    assert (row["kind"], row["decision"]) == ("promotion", "allowed")
    record = json.loads(json.dumps(found.store.quantgov_record(row["decision_id"])))
    facts = json.loads(record["facts"])
    assert len(record["statements"]) == 3 and facts["siblings"] and facts["facts"]["checkpoint"]["descent"]
    assert replay(record).same
    kept = next(iter(record["statements"]))
    for statements in ({}, record["statements"] | {kept: record["statements"][kept].replace("chat", "cat")}):
        with pytest.raises(TamperingError, match=r"is gone|was altered"):
            replay(record | {"statements": statements})


def test_many_rows_take_no_more_memory_than_few() -> None:
    import tracemalloc

    def rows(count: int) -> Iterator[dict[str, Any]]:
        previous = GENESIS
        for seq in range(1, count + 1):
            row: dict[str, Any] = dict.fromkeys(WHOLE) | {"seq": seq, "body": "{}", "previous_hash": previous}
            row["row_hash"] = previous = hash_of(row)
            yield row

    peaks = []
    for count in (200, 2_000):
        tracemalloc.start()
        assert walk(rows(count)).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + 50_000
