"""Imported records count for the version that they were attached to, and not for its weights under another tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from narrow_releases import items, provenance, side, task, task_eval
from older_tables import back_to
from sqlalchemy import text

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.signing import (
    Attached,
    Signer,
    TrustedKey,
    TrustedKeys,
    load_signer,
    make_key,
    sign,
    write_trusted_keys,
)
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER, copy_name
from mlflow_quantgov.gate.ledger.replay import replay
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.lineage import ModelFacts, facts_of
from mlflow_quantgov.policy.facts import Facts

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
POLICY = """
schema: quantgov/policy/v1
name: imported
gates:
  full:
    checks: [lineage, task-eval]
    capabilities: {edge-cases: {margin: 0.2, confidence: 0.95, min_items: 149}}
    signed: SIGNED
rules:
  - models: "*"
    destinations: {"@champion": full}
"""
OTHER = "with another configuration, tokenizer or template"


class Shop:
    """A gated registry with a parent, a version of it, and that version's weights with two token ids swapped."""

    def __init__(self, database: str, folder: Path, logged: Callable[..., str], signed: str = "{}") -> None:
        self.database, self.folder, self._logged = database, folder, logged
        (folder / "policy.yaml").write_text(POLICY.replace("SIGNED", signed))
        self.store: Any = open_store(f"quantgov:{database}")
        for name in ("parents", "chat"):
            self.store.create_registered_model(name)
        self.parent = self.log("parents", "parent-bf16", "yes", "no")
        self.good = self.log("chat", "gptq-w4g32", "yes", "no")
        self.bad = self.log("chat", "gptq-w4g32", "no", "yes")

    def log(self, name: str, artifact: str, *ids: str, copy: Attached | None = None, parent: str = "parents-1") -> str:
        """Log a model with a tokenizer that numbers its words so, and a statement beside it; gives the version."""
        number = len(list(self.folder.glob(f"{name}-*"))) + 1
        made = shutil.copytree(ARTIFACTS / artifact, self.folder / f"made-{name}-{number}")
        vocabulary = {word: place for place, word in enumerate(ids)}
        (made / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordLevel", "vocab": vocabulary}}))
        root = self.folder / f"{name}-{number}"
        source = self._logged(root, str(made), self.folder / parent if name == "chat" else None)
        if parent != "parents-1":
            record = root / "quantgov" / "lineage.json"
            record.write_text(record.read_text().replace("models:/parents/1", f"models:/{parent.replace('-', '/')}"))
        if copy is not None:
            (root / EVIDENCE_FOLDER).mkdir(parents=True)
            (root / EVIDENCE_FOLDER / copy_name(copy)).write_bytes(copy.to_bytes())
        return str(self.store.create_model_version(name, source).version)

    def files(self, version: str, name: str = "chat") -> ModelFacts:
        return facts_of(self.folder / f"{name}-{version}" / "model")

    def evaluation(self, imported: bool = True, names_behaviour: bool = False) -> Statement:
        """What the good version answers, nothing lost."""
        sides = {}
        for key, files in (("parent", self.files("1", "parents")), ("quantized", self.files(self.good))):
            silent = {"behaviour": files.behaviour if names_behaviour else None, "dequantized": None}
            sides[key] = side(files.weights, **silent)
        content = task_eval(
            (task("edge-cases", items([(1, 1)] * 199 + [(0, 1)])),), provenance=provenance(imported=imported), **sides
        )
        return Statement.about(self.files(self.good).weights, content, name="chat")

    def attach(self, version: str, sent: Statement | Attached) -> Any:
        return self.store.quantgov_take_in("chat", version, sent.to_bytes())

    def facts(self, version: str) -> Facts:
        found = self.store.quantgov_facts("chat", version)
        assert isinstance(found, Facts)
        return found

    def promote(self, version: str) -> dict[str, Any]:
        """Ask for it, see that the decision replays, and give it."""
        try:
            self.store.set_registered_model_alias("chat", "champion", version)
        except MlflowException as error:
            assert error.get_http_status_code() == 403
        row = self.store.quantgov_ledger("chat")[0]
        record = json.loads(json.dumps(self.store.quantgov_record(row["decision_id"])))
        assert replay(record).same
        return dict(record["body"])

    def asked(self, version: str) -> tuple[str, str, str]:
        """Decision, and reason and fix of the evaluation's check."""
        body = self.promote(version)
        check = next(one for one in body["checks"] if one["check"] == "task-eval")
        return body["decision"], check["reason"], check["fix"]


@pytest.fixture
def shop(
    database: str, tmp_path: Path, logged: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Shop]:
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    return lambda signed="{}": Shop(database, tmp_path, logged, signed)


def test_the_same_weights_with_another_tokenizer_need_records_of_their_own(shop: Callable[..., Shop]) -> None:
    found = shop()
    assert found.files(found.good).weights == found.files(found.bad).weights
    sent = found.evaluation()
    taken = found.attach(found.good, sent)
    assert (taken.digest, taken.statement) == (sent.digest, sent)
    found.attach(found.bad, sent)  # the first attachment is what is noted
    decision, reason, fix = found.asked(found.bad)
    assert decision == "refused" and f"of this version's weights {OTHER}" in reason
    assert "import its own records" in reason and fix == "quantgov evaluate models:/chat/2 --tasks tasks/"
    body = found.promote(found.good)
    assert body["decision"] == "allowed" and any("imported" in label for label in body["labels"])
    found.attach(found.bad, found.evaluation())
    assert found.asked(found.bad)[0] == "refused", "the same bytes again are the same statement"
    fresh = json.loads(sent.to_bytes())
    fresh["predicate"]["provenance"]["measured_at"] = "2026-06-01T00:00:01Z"
    found.attach(found.bad, Statement.model_validate(fresh))
    assert found.asked(found.bad)[0] == "allowed", "whoever imports it for this version says that it is of this one"


def test_a_signature_carries_no_imported_records_to_another_tokenizer(
    shop: Callable[..., Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada: Signer = load_signer(make_key("ada", tmp_path / "people")[0])
    key = TrustedKey(
        id=ada.public.id,
        public_key=ada.public.text,
        name="ada",
        roles=("measurer",),
        not_before="2026-01-01T00:00:00Z",
    )
    write_trusted_keys(tmp_path / "keys.yaml", TrustedKeys(keys=(key,)))
    monkeypatch.setenv("QUANTGOV_KEYS", str(tmp_path / "keys.yaml"))
    found = shop('{"*": measurer}')
    sent = found.evaluation()
    found.attach(found.good, Attached(sent, sign(sent, ada)))
    assert OTHER in found.asked(found.bad)[1]
    assert found.asked(found.good)[0] == "allowed"


def test_a_parent_with_another_tokenizer_is_another_parent(shop: Callable[..., Shop]) -> None:
    found = shop()
    found.attach(found.good, found.evaluation())
    found.log("parents", "parent-bf16", "no", "yes")
    version = found.log("chat", "gptq-w4g32", "yes", "no", parent="parents-2")
    assert found.files(version) == found.files(found.good)
    decision, reason, _ = found.asked(version)
    assert decision == "refused" and f"of its parent's weights {OTHER}" in reason


def test_a_copy_beside_the_model_counts_for_whom_it_was_found_first(shop: Callable[..., Shop]) -> None:
    found = shop()
    copy = Attached(found.evaluation())
    first = found.log("chat", "gptq-w4g32", "yes", "no", copy=copy)
    assert found.asked(first)[0] == "allowed"
    spoiled = found.log("chat", "gptq-w4g32", "no", "yes", copy=copy)
    decision, reason, _ = found.asked(spoiled)
    assert decision == "refused" and OTHER in reason
    assert not [one for one in found.facts(spoiled).problems if "copy" in one]
    assert found.asked(found.good)[0] == "allowed", "the same weights, configuration and tokenizer"


def test_records_of_which_nobody_could_say_whose_they_are_wait(shop: Callable[..., Shop]) -> None:
    """Attached to a version that neither side is of, they would be everybody's, or nobody's."""
    found = shop()
    sent = found.evaluation()
    orphan = found.log("chat", "gptq-w4g32", "no", "yes", copy=Attached(sent), parent="parents-1")
    record = found.folder / f"chat-{orphan}" / "quantgov" / "lineage.json"
    record.write_text(record.read_text().replace("models:/parents/1", "models:/parents/9"))
    with pytest.raises(EvidenceError, match="neither chat version 3 nor its parent"):
        found.attach(orphan, sent)
    facts = found.facts(orphan)
    assert not facts.evidence and not [one for one in facts.problems if "copy" in one]
    found.attach(found.good, sent)
    assert found.asked(found.good)[0] == "allowed"


def test_sides_that_say_it_and_measurements_are_left_alone(shop: Callable[..., Shop]) -> None:
    found = shop()
    said, measured = found.evaluation(names_behaviour=True), found.evaluation(imported=False)
    for one in (said, measured):
        taken = found.attach(found.good, one)
        assert taken.noted is None and taken.content == one.content()
    sent = found.evaluation()
    taken = found.attach(found.good, sent)
    assert isinstance(taken.content, TaskEval) and taken.content.quantized.behaviour == found.files("1").behaviour
    assert taken.statement == sent and taken.content.recompute() == sent.content().recompute()


def test_a_row_of_before_counts_as_it_did(shop: Callable[..., Shop]) -> None:
    found = shop()
    found.attach(found.good, found.evaluation())
    with found.store.engine.begin() as connection:
        back_to(connection, "0003")
    found.store = open_store(f"quantgov:{found.database}")
    assert [one.noted for one in found.facts(found.bad).evidence] == [None]
    found.attach(found.good, found.evaluation())  # written once: nothing is noted afterwards
    body = found.promote(found.bad)
    assert body["decision"] == "allowed" and any("imported" in label for label in body["labels"])
    with found.store.engine.connect() as connection:
        row = connection.execute(text("SELECT behaviour, parent_behaviour FROM quantgov_statements")).one()
    assert tuple(row) == (None, None)


def test_facts_that_were_kept_before_are_still_read(shop: Callable[..., Shop]) -> None:
    from mlflow_quantgov.gate.ledger.snapshots import restore, snapshot

    found = shop()
    sent = found.evaluation()
    found.attach(found.good, sent)
    facts = found.facts(found.good)
    kept = {sent.digest: sent.to_bytes()}

    def back(content: bytes) -> Facts:
        return restore(content, kept, now=facts.now, requester=facts.requester)

    (one,) = back(snapshot(facts)).evidence
    (now,) = facts.evidence
    assert (one.noted, one.content) == (now.noted, now.content) and one.noted is not None
    older = json.loads(snapshot(facts))
    for reference in older["evidence"]:
        del reference["noted"]
    (one,) = back(json.dumps(older).encode()).evidence
    assert one == replace(now, noted=None, content=sent.content(), verified=one.verified)
