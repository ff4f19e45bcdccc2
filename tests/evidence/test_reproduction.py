"""A second run of the recipe: the same bytes, or where they differ; a statement that claims more is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.artifact.tensors import read_gguf
from mlflow_quantgov.artifact.weights import WeightPart, weight_parts, weights_digest
from mlflow_quantgov.errors import ArtifactError, EvidenceError, LineageError, UsageError
from mlflow_quantgov.evidence.measure.documents import file_digest
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.measure.reproduction import quantize, reproduce
from mlflow_quantgov.evidence.predicates import MadePart, Reproduction
from mlflow_quantgov.evidence.statement import Statement, parse_statement

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"


def recipe(**arguments: object) -> Recipe:
    """A recipe of llama.cpp in the installed version."""
    return Recipe(quantizer="llama.cpp", version=find_quantizer("llama.cpp").version(), arguments=arguments)


def again(version: Path, parent: Path, one: Recipe) -> Reproduction:
    """Run a recipe again for a version."""
    weights, theirs = build_manifest(version).weights_digest, build_manifest(parent).weights_digest
    return reproduce(version, parent, one, weights=weights, parent_weights=theirs)


@pytest.mark.parametrize("path", ["gptq-w4g32", "bnb-nf4-double", "tiny-Q4_0.gguf", "onnx-int4-nbits"])
def test_the_parts_of_an_artifact_give_its_weights_digest(path: str) -> None:
    assert weights_digest(weight_parts(ARTIFACTS / path)) == build_manifest(ARTIFACTS / path).weights_digest


@given(
    st.lists(
        st.builds(
            WeightPart,
            st.text(min_size=1, max_size=5),
            st.text("0123456789abcdef", min_size=64, max_size=64),
            st.sampled_from(["F16", "I32"]),
            st.lists(st.integers(1, 9), max_size=2).map(tuple),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda part: part.name,
    ),
    st.randoms(),
)
def test_the_digest_depends_on_the_parts_and_not_on_their_order(parts: list[WeightPart], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert weights_digest(shuffled) == weights_digest(parts)
    changed = [WeightPart(parts[0].name + "x", parts[0].sha256, parts[0].dtype, parts[0].shape), *parts[1:]]
    assert weights_digest(changed) != weights_digest(parts)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(skills: Path, tmp_path: Path) -> None:
    made = quantize(skills, tmp_path / "made", recipe(type="Q4_K"))
    found = again(made, skills, recipe(type="Q4_K"))
    assert found.stated()["outcome"] == "pass"
    assert not found.differences
    assert found.stated()["weights"] == build_manifest(made).weights_digest


@pytest.mark.slow
def test_another_recipe_gives_others_and_says_where(skills: Path, tmp_path: Path) -> None:
    made = quantize(skills, tmp_path / "made", recipe(type="Q4_K"))
    found = again(made, skills, recipe(type="Q4_K", output_type="Q8_0"))
    assert found.stated() | {"weights": None} == {"outcome": "fail", "weights": None, "parts": 20, "different": 1}
    (one,) = found.differences
    assert one.name in {"output.weight", "token_embd.weight"}
    assert one.problem.startswith("Q8_0 [") and "where the version has Q6_K" in one.problem


@pytest.mark.slow
def test_one_altered_byte_is_found(skills: Path, tmp_path: Path) -> None:
    made = quantize(skills, tmp_path / "made", recipe(type="Q8_0"))
    altered = tmp_path / "altered.gguf"
    data = bytearray(made.read_bytes())
    data[-5] ^= 1
    altered.write_bytes(data)
    found = again(altered, skills, recipe(type="Q8_0"))
    assert found.stated()["outcome"] == "fail"
    last = max(read_gguf(altered).tensors.values(), key=lambda tensor: tensor.offset)
    (one,) = found.differences
    assert (one.name, one.problem.split(" differ")[0]) == (last.name, f"1 of {last.size:,} bytes")


@pytest.mark.slow
def test_another_installed_version_runs_nothing(skills: Path, tmp_path: Path) -> None:
    old = recipe(type="Q8_0").model_copy(update={"version": "2020.1"})
    with pytest.raises(UsageError, match=r"2020\.1; .* is installed here") as caught:
        quantize(skills, tmp_path / "made", old)
    assert caught.value.fix == "pip install 'xllamacpp==2020.1'"
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_nothing_is_left_behind_where_it_fails(skills: Path, tmp_path: Path) -> None:
    broken = tmp_path / "parent"
    shutil.copytree(skills, broken)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="tokenizer"):
        quantize(broken, tmp_path / "out" / "made", recipe(type="Q8_0"))
    assert not list((tmp_path / "out").iterdir())


def test_the_calibration_file_must_be_the_one_that_was_used(tmp_path: Path) -> None:
    data, other = tmp_path / "calib.jsonl", tmp_path / "other.jsonl"
    data.write_text(json.dumps({"text": "a"}))
    other.write_text(json.dumps({"text": "b"}))
    one = Recipe(quantizer="gptqmodel", version="7.6.0", arguments={"bits": 4}, calibration=file_digest(data))
    with pytest.raises(UsageError, match="none was given"):
        quantize(tmp_path, tmp_path / "made", one)
    with pytest.raises(UsageError, match=r"other\.jsonl has the digest .* the recipe names sha256"):
        quantize(tmp_path, tmp_path / "made", one, other)
    without = one.model_copy(update={"calibration": None})
    with pytest.raises(UsageError, match="names no calibration data"):
        quantize(tmp_path, tmp_path / "made", without, data)


def test_a_missing_calibration_file_is_looked_for_by_its_digest(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    one = Recipe(quantizer="gptqmodel", version="7.6.0", arguments={"bits": 4}, calibration=digest)
    with pytest.raises(UsageError, match=r"calib\.jsonl does not exist") as caught:
        quantize(tmp_path, tmp_path / "made", one, tmp_path / "calib.jsonl")
    assert f"sha256sum {{}} + | grep {'a' * 64}" in caught.value.fix and "--calibration" in caught.value.fix


@pytest.mark.parametrize(("name", "said"), [("empty", "holds no model weights"), ("gptq-w4g32", "quantized already")])
def test_a_parent_that_is_none_is_named_as_such(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    parent = tmp_path / name if name == "empty" else ARTIFACTS / name
    with pytest.raises((ArtifactError, LineageError), match=said) as caught:
        quantize(parent, tmp_path / "made", recipe(type="Q8_0"))
    assert "GGUF twin" not in str(caught.value) and not (tmp_path / "made").exists()


def statement(made: list[MadePart], weights: str) -> Statement:
    """A statement as `reproduce` makes it."""
    content = Reproduction.measured(
        provenance=provenance(),
        weights=weights,
        parent="sha256:" + "b" * 64,
        recipe=recipe(),
        ran_version=recipe().version,
        machine=this_machine(),
        made=tuple(made),
    )
    return Statement.about(weights, content, name="m")


def test_a_claim_of_the_same_bytes_that_its_parts_do_not_give_is_refused() -> None:
    part = MadePart(name="a", sha256="0" * 64, dtype="F16", shape=(1,))
    right = weights_digest([WeightPart("a", "0" * 64, "F16", (1,))])
    assert statement([part], right).content().stated()["outcome"] == "pass"
    wrong = statement([part.model_copy(update={"sha256": "1" * 64})], right)
    assert wrong.content().stated()["outcome"] == "fail"
    forged = json.loads(wrong.to_bytes())
    forged["predicate"]["summary"]["outcome"] = "pass"
    with pytest.raises(EvidenceError, match=r"summary\.outcome"):
        parse_statement(json.dumps(forged).encode()).content()
