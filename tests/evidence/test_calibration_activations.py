"""What the quantizer saw: the parent's layers on calibration data against production, and what the difference costs."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlflow_quantgov.artifact.runtimes.transformers_observer import FEATURES, project
from mlflow_quantgov.artifact.tensors import read_safetensors, write_safetensors
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.likeness import ACTIVATIONS, judge
from mlflow_quantgov.evidence.likeness.discrepancy import estimate_and_error
from mlflow_quantgov.evidence.measure.calibration import assess
from mlflow_quantgov.evidence.measure.calibration.activations import ParentLayers, View, look
from mlflow_quantgov.evidence.measure.calibration.layers import compare_layers
from mlflow_quantgov.evidence.measure.calibration.sampling import sample
from mlflow_quantgov.evidence.predicates import Calibration, DataRecord, Provenance
from mlflow_quantgov.evidence.predicates.calibration import LayerRecord

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_quantizers as quantizers

PARENT = "sha256:" + "a" * 64


def traffic(count: int, seed: int) -> list[str]:
    """Documents of the kind that the skills model was trained on."""
    from mlflow_quantgov.demo.models.skills_data import document

    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]


def gptq(parent: Path, destination: Path, texts: Sequence[str], tokens: int) -> Path:
    """The model at 4 bit by GPTQ, calibrated on the first tokens of some texts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(parent)
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    hessians: dict[str, Any] = {}

    def watch(name: str, given: torch.Tensor) -> None:
        rows = given.detach().reshape(-1, given.shape[-1]).double().numpy()
        hessians[name] = hessians.get(name, 0.0) + rows.T @ rows

    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, given, name=name: watch(f"{name}.weight", given[0]))
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"][:tokens]]))
    return quantizers.write_gptq(destination, *quantizers.load(parent), 4, 32, hessians)


@pytest.fixture(scope="session")
def calibrated(
    skills: Path, python_texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[str]]]:
    """The skills model by the same quantizer at the same width, calibrated on its own traffic and on something else."""
    folder = tmp_path_factory.mktemp("calibrated")
    texts = {"own": traffic(250, 5), "generic": python_texts[:250]}
    return {name: (gptq(skills, folder / name, docs[:128], 96), docs) for name, docs in texts.items()}


@given(st.integers(4, 12), st.integers(4, 12), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_mean_of_the_layers_distances_is_what_the_test_says(left: int, right: int, inputs: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    calibration = generator.normal(0.5, 1, (left, inputs, 5)).astype(np.float32)
    production = generator.normal(0, generator.uniform(0, 2), (right, inputs, 5)).astype(np.float32)
    reads = tuple(generator.integers(0, inputs, 7).tolist())
    found = compare_layers(calibration, production, reads)
    estimate, _ = estimate_and_error(found.likeness.calibration, found.likeness.production)
    assert np.mean(found.distances) == pytest.approx(estimate, abs=1e-5)
    assert len({found.distances[at] for at in range(7) if reads[at] == reads[0]}) == 1


def test_alike_layers_pass_and_shifted_ones_fail() -> None:
    generator = np.random.default_rng(0)
    production = generator.normal(size=(150, 6, 16)).astype(np.float32)
    for shift, outcome in ((0.0, "pass"), (0.8, "fail")):
        calibration = (generator.normal(size=(150, 6, 16)) + shift).astype(np.float32)
        one = compare_layers(calibration, production, tuple(range(6))).likeness
        verdict = judge(one.name, one.calibration, one.production, family=4, concentration=one.concentration)
        assert one.name == ACTIVATIONS and verdict["outcome"] == outcome


@given(st.integers(1, 300), st.floats(0, 1e30))
def test_projected_statistics_are_finite_whatever_the_channels_hold(width: int, size: float) -> None:
    squares = np.full(width, size, dtype=np.float32)
    squares[::2] = 0
    found = project(squares)
    assert found.shape == (FEATURES,) and np.isfinite(found).all()


def calibration_of(**changes: Any) -> Calibration:
    generator = np.random.default_rng(1)
    compared = compare_layers(
        generator.normal(1, 1, (30, 2, 4)).astype(np.float32),
        generator.normal(size=(30, 2, 4)).astype(np.float32),
        (0, 1),
    )
    records = tuple(LayerRecord(name=f"l{at}", distance=one) for at, one in enumerate(compared.distances))
    data = DataRecord(digest=PARENT, documents=30, characters=900)
    values = {
        "provenance": Provenance(measured_at="2026-06-01T00:00:00Z", tool_version="0"), "data": data, "production": data,
        "leaked_documents": 0, "shared_with_production": 0, "likeness": (compared.likeness,), "layers": records,
    }  # fmt: skip
    return Calibration.measured(**(values | changes))


def test_layers_that_the_test_does_not_give_are_refused() -> None:
    sound = calibration_of()
    assert sound.layers and Calibration.model_validate_json(sound.model_dump_json()) == sound
    moved = (sound.layers[0].model_copy(update={"distance": sound.layers[0].distance - 0.2}), sound.layers[1])
    for changes in (
        {"layers": moved},
        {"layers": (sound.layers[0], sound.layers[0])},
        {"likeness": ()},
        {"layers": ({"name": "l", "distance": float("nan")},)},
        {"layers": ({"name": "l", "distance": 1e308},)},
    ):
        with pytest.raises(ValidationError):
            calibration_of(**changes)


@pytest.mark.parametrize("name", ["parent.gguf", "empty"])
def test_a_parent_that_does_not_run_here_leaves_the_view_unmeasured_in_one_sentence(tmp_path: Path, name: str) -> None:
    parent = tmp_path / name
    parent.write_bytes(b"GGUF") if name.endswith("gguf") else parent.mkdir()
    found = look(ParentLayers(parent, PARENT, parent), ["a b"] * 5, ["c d"] * 5)
    assert not found.likeness and not found.layers and found.unobserved
    assert (
        found.unobserved.startswith("What the parent's layers see was not measured: ") and "\n" not in found.unobserved
    )


def test_too_few_documents_leave_it_unmeasured(skills: Path) -> None:
    found = look(ParentLayers(skills, PARENT, skills), ["a b"] * 3, ["c d"] * 5)
    assert found == View(unobserved=found.unobserved) and "4 different documents" in str(found.unobserved)


@pytest.mark.slow
def test_calibrated_on_its_own_traffic_or_on_something_else_is_told_apart_in_three_views(
    skills: Path,
    calibrated: dict[str, tuple[Path, list[str]]],
    write_jsonl: Callable[[str, Sequence[str]], Path],
    tmp_path: Path,
) -> None:
    production = write_jsonl("production.jsonl", traffic(250, 3))
    found = {}
    for name, (quantized, documents) in calibrated.items():
        asked = ParentLayers(skills, PARENT, quantized, tmp_path / "cache", documents=100, tokens=96)
        data = write_jsonl(f"{name}.jsonl", documents)
        found[name] = assess(data, production, expectations=False, layers=asked)
    for name, outcome in (("own", "pass"), ("generic", "fail")):
        tests = found[name].summary["tests"]
        outcomes = {one["name"]: one["outcome"] for one in tests}
        # Phrases are there for data that was made from production's own; docstrings share few words with this traffic.
        assert outcomes.pop("phrases") in {"pass": {"pass"}, "fail": {"fail", "inconclusive"}}[outcome]
        assert outcomes == dict.fromkeys(("surface", "meaning", "classifier", "activations"), outcome)
        assert found[name].summary["outcome"] == outcome
        assert len(found[name].layers) == 14 and found[name].unobserved is None
        assert all(one.ratio for one in found[name].layers)
    errors = {name: [one.production_error or 0 for one in content.layers] for name, content in found.items()}
    costlier = [generic > own for generic, own in zip(errors["generic"], errors["own"], strict=True)]
    assert sum(costlier) >= 11 and median(errors["generic"]) > 1.1 * median(errors["own"])
    assert min(one.distance for one in found["generic"].layers) > 0.2
    assert max(one.distance for one in found["own"].layers) < 0.05


@pytest.mark.slow
def test_errors_are_those_of_the_layers_outputs(skills: Path, calibrated: dict[str, tuple[Path, list[str]]]) -> None:
    """Against torch on the same tokens, with weights dequantized here."""
    from mlflow_quantgov.artifact.dequantize import matrices
    from mlflow_quantgov.artifact.derivation.outputs import output_errors, quantized_pairs

    quantized, _ = calibrated["own"]
    pairs = quantized_pairs(quantized, skills)
    assert pairs is not None
    inputs = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    name = "model.layers.1.mlp.up_proj.weight"
    parent = dict(read_safetensors(skills / "model.safetensors"))[name].astype(np.float64)
    rows = np.repeat(inputs, parent.shape[1], axis=1) * np.linspace(-1, 2, parent.shape[1], dtype=np.float32)
    matrix = matrices(quantized)[name]
    stored = np.concatenate([matrix.block(*bounds).values for bounds in matrix.blocks()])
    expected = np.square(rows @ (parent - stored).T).sum() / np.square(rows @ parent.T).sum()
    found = output_errors(pairs, lambda asked: [rows] if asked == name else None)
    assert list(found) == [name] and found[name][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(
    skills: Path, skills_q8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = sample(traffic(40, 1)), sample(traffic(40, 2))
    messages: list[str] = []

    class Killed(BaseException):
        pass

    def tell(message: str, share: float) -> None:
        messages.append(message)
        if len(messages) == 5:
            raise Killed

    def asked(cache: Path, **more: Any) -> ParentLayers:
        return ParentLayers(skills, PARENT, skills_q8, cache, tokens=32, **more)

    with pytest.raises(Killed):
        look(asked(tmp_path / "cache", progress=tell), *sides)
    kept = len(list((tmp_path / "cache" / "activations").glob("*.npz")))
    assert kept == 3 and "tokens through the parent: about" in messages[1]
    (tmp_path / "cache" / "activations" / "half.part").write_bytes(b"x")
    assert look(asked(tmp_path / "cache", progress=lambda *_: None), *sides) == look(asked(tmp_path / "other"), *sides)
    assert len(list((tmp_path / "cache" / "activations").glob("*.npz"))) == 6


@pytest.mark.slow
def test_a_broken_piece_is_run_again(skills: Path, skills_q8: Path, tmp_path: Path) -> None:
    sides = sample(traffic(8, 1)), sample(traffic(8, 2))
    asked = ParentLayers(skills, PARENT, skills_q8, tmp_path, tokens=32)
    first = look(asked, *sides)
    for piece in (tmp_path / "activations").glob("*.npz"):
        piece.write_bytes(piece.read_bytes()[:100])
    assert look(asked, *sides) == first


@pytest.mark.slow
def test_documents_without_tokens_and_activations_that_are_nan_are_one_clear_line(
    skills: Path, skills_q8: Path, tmp_path: Path
) -> None:
    good = sample(traffic(8, 1))
    with pytest.raises(EvidenceError, match="No calibration document has two tokens") as caught:
        look(ParentLayers(skills, PARENT, skills_q8, tokens=32), ["a", "b", "c", "d"], good)
    assert "--no-activations" in caught.value.fix
    broken = tmp_path / "broken"
    broken.mkdir()
    for one in skills.iterdir():
        (broken / one.name).write_bytes(one.read_bytes())
    tensors = {name: array.copy() for name, array in read_safetensors(skills / "model.safetensors")}
    tensors["model.layers.1.input_layernorm.weight"][:] = np.nan
    write_safetensors(broken / "model.safetensors", tensors)
    with pytest.raises(EvidenceError, match=r"layer model\.layers\.1\.self_attn\.q_proj reads NaN"):
        look(ParentLayers(broken, PARENT, skills_q8, tokens=32), good, good)
