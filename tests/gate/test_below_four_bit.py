"""Below four bit through the gated store: real quantized bytes, an honest release, and each shortcut beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from narrow_releases import Registry, mixed, narrow, original, refused, release, rounded, trained, wide, written

from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.predicates import Training
from mlflow_quantgov.flavor.layout import LINEAGE_FILE
from mlflow_quantgov.pages.report import render_report

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))
import descent_parents as parents
import descent_quantizers as make
from releases import digest, provenance

pytestmark = pytest.mark.slow  # whole checkpoints are written and compared for each test


@pytest.mark.parametrize("level", ["structure", "numeric"])
@pytest.mark.parametrize("bits", [3, 2])
def test_an_honest_release_is_let_through_and_the_report_shows_its_checkpoint(
    registry: Callable[..., Registry], bits: int, level: str
) -> None:
    found = registry(level)
    version = release(found, bits)
    facts, decision = (
        found.store.quantgov_facts("chat", version),
        found.store.quantgov_check("chat", version, "@champion"),
    )
    assert decision.allowed, decision.one_line()
    assert facts.lineage.level == "numeric" and facts.lineage.through.uri == "models:/trained/1"
    found.promote(version)
    assert str(found.store.get_model_version_by_alias("chat", "champion").version) == version
    page = render_report(facts, decision, title="chat version 2")
    assert "Trained checkpoint" in page and "borne out" in page and "models:/trained/1" in page
    assert "quantized matrices are the checkpoint&#39;s, rounded" in page and "against the trained checkpoint's" in page
    assert "models:/chat/1 at 4 bit was evaluated first" in page


def test_on_postgresql_too(registry: Callable[..., Registry], new_postgres_database: Callable[[], str]) -> None:
    found = registry(database=new_postgres_database())
    found.promote(release(found, 2))


def test_a_mixture_whose_narrow_matrix_was_trained_is_let_through(registry: Callable[..., Registry]) -> None:
    """Only what is below four bit has to have been trained."""
    found = registry()
    wide(found)
    half = original() | {name: one for name, one in trained().items() if "down_proj" in name}
    found.register("trained", written(found.folder / "half", half))
    version = found.register("chat", mixed(found.folder / "mixed", half, "down_proj"), "1")
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    check = found.check(version)
    assert (check.outcome, check.numbers["narrowest_bits"]) == ("pass", 2), check.reason


def test_no_statement(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    version = narrow(found)
    found.evaluate(version)
    check = refused(found, "needs quantization-aware training, and none is recorded", "missing")
    assert check.fix.startswith(f"quantgov training models:/chat/{version}")
    with pytest.raises(MlflowException, match="needs quantization-aware training"):
        found.promote(version)


@pytest.mark.parametrize("uri", ["models:/trained/7", "models:/nobody/1"])
def test_a_checkpoint_that_is_not_registered(registry: Callable[..., Registry], uri: str) -> None:
    found = registry()
    wide(found)
    version = narrow(found)
    found.train(version, uri, found.weights("trained", "1").weights)
    found.evaluate(version)
    check = refused(found, f"{uri} is no registered version", "missing")
    assert "quantgov log-parent" in check.fix


def test_a_checkpoint_that_was_deleted_since(registry: Callable[..., Registry]) -> None:
    found = registry()
    release(found)
    assert found.check().outcome == "pass"
    found.store.delete_model_version("trained", "1")
    refused(found, "is no registered version", "missing")


def test_a_checkpoint_that_is_the_parent(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    version = narrow(found, weights=original())
    found.train(version, "models:/parents/1")
    found.evaluate(version)
    refused(found, "is the original itself: nothing was trained")


def with_first_norm(weights: make.Weights, factor: float) -> make.Weights:
    name = next(name for name in weights if name.endswith("norm.weight"))
    return weights | {name: (weights[name] * factor).astype(np.float32)}


def in_float16(weights: make.Weights) -> make.Weights:
    return {name: one.astype(np.float16).astype(np.float32) + 1e-7 for name, one in weights.items()}


@pytest.mark.parametrize(
    ("label", "bits"), [("cast", 3), ("norm", 3), ("norm", 2), ("embedding", 3), ("one layer", 3), ("epsilon", 2)]
)
def test_a_checkpoint_that_moved_where_nothing_is_narrow(
    registry: Callable[..., Registry], label: str, bits: int
) -> None:
    """Other bytes alone are no training: every matrix below four bit has to be another than the original's, rounded."""
    weights = {
        "cast": in_float16(original()),
        "norm": with_first_norm(original(), 1.05),
        "embedding": original()
        | {"model.embed_tokens.weight": original()["model.embed_tokens.weight"] * np.float32(1.1)},
        "one layer": original() | {name: one for name, one in trained().items() if "down_proj" in name},
        "epsilon": parents.changed(original(), 1e-4),
    }[label]
    found = registry()
    found.register("trained", written(found.folder / "moved", weights))
    wide(found)
    version = narrow(found, bits, weights)
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    check = refused(found, "left no trace")
    assert ("6 of 7 matrices" if label == "one layer" else "7 of 7 matrices") in check.reason


def test_a_checkpoint_of_another_seed(registry: Callable[..., Registry]) -> None:
    other = parents.another_seed(original())
    found = registry()
    found.register("trained", written(found.folder / "seed", other))
    wide(found)
    version = narrow(found, weights=other)
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    refused(found, "models:/trained/2 does not come from the original")


def test_a_checkpoint_that_is_quantized(registry: Callable[..., Registry]) -> None:
    found = registry()
    version = release(found)
    found.train(version, "models:/chat/1")
    refused(found, "models:/chat/1 is itself quantized")


def test_a_checkpoint_that_is_the_rounding_written_back(registry: Callable[..., Registry]) -> None:
    """The numbers of the very codes as floats: their rounding is the release, whatever was trained."""
    back = parents.once_quantized(original(), 2, 32)
    found = registry()
    found.register("trained", written(found.folder / "back", back))
    wide(found)
    version = narrow(found, 2, original())
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    refused(found, "lie on a k-bit grid")


def test_quantized_weights_that_are_no_rounding_of_the_checkpoint(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    version = narrow(found, weights=original())
    found.train(version)
    found.evaluate(version)
    check = refused(found, "are not the rounding of the checkpoint models:/trained/1")
    assert found.store.quantgov_facts("chat", version).lineage.through is None
    assert check.numbers["training"]["run"] == "r1"


def test_a_width_without_a_budget(registry: Callable[..., Registry]) -> None:
    found = registry(budgets="{3: 0.02}")
    release(found, 2)
    refused(found, "gives no quality budget for 2 bit; the lowest is for 3 bit", "missing")


@pytest.mark.parametrize(("lost", "outcome", "words"), [(60, "fail", "fell from"), (2, "inconclusive", "as large as")])
def test_a_budget_that_was_exceeded(registry: Callable[..., Registry], lost: int, outcome: str, words: str) -> None:
    """The gate's own margin of 20 points would let both through."""
    found = registry()
    wide(found)
    version = narrow(found)
    found.train(version)
    found.evaluate(version, lost)
    assert words in refused(found, "The budget for 3 bit is 2.0%", outcome).reason
    with pytest.raises(MlflowException, match="The budget for 3 bit"):
        found.promote()


def test_no_evaluation_against_the_original(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    found.train(narrow(found))
    refused(found, "no task evaluation against the original", "missing")


def test_no_wider_version(registry: Callable[..., Registry]) -> None:
    found = registry()
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    refused(found, "No version of the same parent at 4 bit or more was evaluated first", "missing", version)


def test_a_wider_version_that_nobody_evaluated(registry: Callable[..., Registry]) -> None:
    found = registry()
    found.register("chat", rounded(found.folder / "w4", original(), 4), "1")
    found.train(narrow(found))
    found.evaluate("2")
    refused(found, "at 4 bit or more was evaluated first", "missing")


def test_a_wider_version_that_was_evaluated_later(registry: Callable[..., Registry]) -> None:
    """The author's clock does not help: what the gate received counts too. In the right order it is let through."""
    found = registry()
    found.register("chat", rounded(found.folder / "w4", original(), 4), "1")
    found.train(narrow(found))
    found.evaluate("2")
    found.evaluate("1", at=found.clock - timedelta(hours=3))
    check = refused(found, "models:/chat/1 was evaluated only after this version", "missing")
    assert check.fix == "quantgov evaluate models:/chat/2 --tasks tasks/"
    found.evaluate("2")
    found.promote("2")


def test_a_wider_version_of_another_parent(registry: Callable[..., Registry]) -> None:
    found = registry()
    other = parents.another_seed(original())
    found.register("parents", written(found.folder / "2", other))
    wider = found.register("chat", rounded(found.folder / "w4", other, 4), "2")
    found.evaluate(wider, parent="2")
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    refused(found, "No version of the same parent at 4 bit", "missing")
    # Nor under a false name: the weights have nothing in common with the parent's.
    wider = found.register("chat", rounded(found.folder / "w5", other, 4, bos_token_id=7), "1")
    place = found.folder / "logged-chat-w5" / LINEAGE_FILE
    assert json.loads(place.read_text())["parent"]["uri"] == "models:/parents/1"
    found.evaluate(wider)
    found.evaluate(version)
    refused(found, "No version of the same parent at 4 bit", "missing")


def test_the_same_version_registered_twice_is_none_before_itself(registry: Callable[..., Registry]) -> None:
    found = registry()
    version = narrow(found)
    found.train(version)
    found.evaluate(version)
    found.register("copies", found.folder / "w3", "1")
    refused(found, "No version of the same parent at 4 bit", "missing", version)


def test_a_statement_that_is_bound_to_other_bytes(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    version = narrow(found)
    found.evaluate(version)
    content = Training.measured(
        provenance=provenance(measured_at=found.later()), run="r1", checkpoint_uri="models:/trained/1", steps=1000,
        checkpoint=found.weights("trained", "1").weights, data_digest=digest("5"), code_version="v1",
    )  # fmt: skip
    other = found.weights("chat", "1").weights
    with pytest.raises(EvidenceError, match="not about chat version 2"):
        found.take_in(version, content, subject=other)
    found.take_in("1", content, subject=other)
    found.take_in(version, content, subject=found.weights("parents", "1").weights)
    refused(found, "none is recorded for these weights", "missing")


def test_a_statement_that_names_other_weights_than_the_checkpoint_holds(registry: Callable[..., Registry]) -> None:
    found = registry()
    wide(found)
    version = narrow(found)
    found.train(version, weights=digest("9"))
    found.evaluate(version)
    refused(found, "holds other weights than those that the training statement names")


def test_training_that_moved_a_little_is_seen_by_the_codes_that_turned(registry: Callable[..., Registry]) -> None:
    """A change that the original's comparison lets pass as its own rounding still turned some codes, and those are counted."""
    slight = parents.changed(original(), 0.02)
    found = registry()
    found.register("trained", written(found.folder / "slight", slight))
    wide(found)
    version = narrow(found, 2, slight)
    found.train(version, "models:/trained/2")
    found.evaluate(version)
    assert found.check().outcome == "pass", found.check().reason
