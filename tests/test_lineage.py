"""Levels of proof: each wrong claim stops at the level that it breaks, and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.lineage import ModelFacts, prove
from mlflow_quantgov.lineage import facts_of as facts

ARTIFACTS = Path(__file__).parent / "data" / "artifacts"


@pytest.fixture(scope="module")
def parent() -> ModelFacts:
    return facts(ARTIFACTS / "parent-bf16")


@pytest.fixture(scope="module")
def child() -> ModelFacts:
    return facts(ARTIFACTS / "gptq-w4g32")


def claim(parent: ModelFacts) -> dict[str, str]:
    return {"uri": "models:/p/1", "weights": parent.weights, "manifest": parent.manifest}


@pytest.mark.parametrize(
    "name", ["gptq-w4g32", "awq-w4g32", "ct-w4g32", "bnb-nf4-double", "torchao-int8wo", "tiny-Q4_0.gguf"]
)
def test_a_real_descendant_reaches_structure(parent: ModelFacts, name: str) -> None:
    found = prove(facts(ARTIFACTS / name), parent, claim(parent))
    assert (found.level, found.problems) == ("structure", ())


def test_no_claim_is_no_level(child: ModelFacts, parent: ModelFacts) -> None:
    assert prove(child, parent, None).level == "none"


def test_a_parent_that_cannot_be_read_is_only_declared(child: ModelFacts, parent: ModelFacts) -> None:
    found = prove(child, None, claim(parent))
    assert found.level == "declared" and "cannot be read" in found.problems[0]


def test_a_parent_that_changed_since_is_only_declared(child: ModelFacts, parent: ModelFacts) -> None:
    found = prove(child, parent, claim(parent) | {"weights": "sha256:" + "0" * 64})
    assert found.level == "declared" and "other weights" in found.problems[0]


def test_a_model_is_not_its_own_parent(parent: ModelFacts) -> None:
    assert prove(parent, parent, claim(parent)).level == "declared"


def test_a_quantized_parent_is_no_parent(child: ModelFacts) -> None:
    other = facts(ARTIFACTS / "bnb-int8")
    found = prove(child, other, claim(other))
    assert found.level == "digest" and any("itself quantized" in problem for problem in found.problems)


@pytest.mark.parametrize(
    "change", [{"hidden_size": 128}, {"num_layers": 7}, {"vocab_size": 5}, {"architecture": "gemma2"}, {"num_heads": 1}]
)
def test_another_architecture_stops_at_digest(child: ModelFacts, parent: ModelFacts, change: dict[str, object]) -> None:
    other = replace(parent, structure=replace(parent.structure, **change))
    assert prove(child, other, claim(other)).level == "digest"


def test_a_matrix_of_another_shape_stops_at_digest(child: ModelFacts, parent: ModelFacts) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = parent.structure.tensors | {name: (1, 1)}
    other = replace(parent, structure=replace(parent.structure, tensors=tensors))
    found = prove(child, other, claim(other))
    assert found.level == "digest" and name in found.problems[0]


def test_a_missing_matrix_stops_at_digest(child: ModelFacts, parent: ModelFacts) -> None:
    tensors = parent.structure.tensors | {"model.layers.1.mlp.up_proj.weight": (96, 64)}
    other = replace(parent, structure=replace(parent.structure, tensors=tensors))
    assert "missing" in prove(child, other, claim(other)).problems[0]


def without(facts: ModelFacts, name: str) -> ModelFacts:
    """A model that does not store one of its matrices."""
    tensors = {key: shape for key, shape in facts.structure.tensors.items() if key != name}
    return replace(facts, structure=replace(facts.structure, tensors=tensors))


def test_an_output_matrix_of_its_own_must_not_be_lost(child: ModelFacts, parent: ModelFacts) -> None:
    found = prove(without(child, "lm_head.weight"), parent, claim(parent))
    assert found.level == "digest" and "missing, the first is lm_head.weight" in found.problems[0]


@pytest.mark.parametrize("by", ["config", "bytes", "neither"])
def test_an_output_matrix_that_repeats_the_embedding_may_be_left_out(
    child: ModelFacts, tmp_path: Path, by: str
) -> None:
    folder = tmp_path / "parent"
    folder.mkdir()
    config = json.loads((ARTIFACTS / "parent-bf16" / "config.json").read_text())
    tensors = dict(read_safetensors(ARTIFACTS / "parent-bf16" / "model.safetensors"))
    if by == "bytes":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": by == "config"}))
    tied = facts(folder)
    assert tied.structure.tied == (by != "neither")
    wanted = "digest" if by == "neither" else "structure"
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        left = without(child, name)
        # Its config has to say so, or a loader would fill the other one with random numbers.
        settings = replace(left.structure.settings, ties=True)
        left = replace(left, structure=replace(left.structure, settings=settings))
        assert prove(left, tied, claim(tied)).level == wanted
    untied = without(child, "lm_head.weight")
    assert (prove(untied, tied, claim(tied)).level == "digest") == (by != "bytes")
    assert prove(child, tied, claim(tied)).level == "structure"


def test_a_tied_matrix_that_is_kept_as_the_output_is_the_embedding(child: ModelFacts, parent: ModelFacts) -> None:
    """onnxruntime-genai's builder stores the one matrix of a tied model under the output's name."""
    tied, kept = without(parent, "lm_head.weight"), without(child, "model.embed_tokens.weight")
    assert prove(kept, tied, claim(tied)).level == "structure"
    # An untied parent has two matrices, and one of them is gone.
    assert prove(kept, parent, claim(parent)).level == "digest"
    shape = dict(kept.structure.tensors) | {"lm_head.weight": (3, 3)}
    other = replace(kept, structure=replace(kept.structure, tensors=shape))
    assert prove(other, tied, claim(tied)).level == "digest"
