"""What llama.cpp's own quantizer wrote, type by type: true and false parents."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ggml_rows import of_rows

from mlflow_quantgov.artifact.dequantize.gguf_codebooks import CODEBOOKS
from mlflow_quantgov.artifact.dequantize.interface import Block, Codebook, Matrix
from mlflow_quantgov.artifact.derivation import Descent, compare
from mlflow_quantgov.artifact.derivation.judge_codebook import judge_codebook
from mlflow_quantgov.artifact.derivation.measure import measure
from mlflow_quantgov.artifact.derivation.signs import change_of_signs, wrong_signs
from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
from mlflow_quantgov.artifact.runtimes.llama_cpp.quantize import NEED_IMPORTANCE
from mlflow_quantgov.artifact.tensors import read_gguf
from mlflow_quantgov.demo.models import SKILLS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_parents as others
import descent_quantizers as make

DISTANCES = {"the parent": 0.0, "changed by 1 %": 0.01, "changed by 10 %": 0.1, "another seed": 1.4}
KINDS = ["Q8_0", "Q4_K", "IQ4_XS", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", *CODEBOOKS]
WITH_MATRIX = [
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "IQ3_XXS",
    "IQ3_S",
    "IQ2_S",
]
SLOW_TABLES = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"}
"""llama.cpp sets theirs up for seconds before it writes the first row."""
NO_TRACE = {"IQ1_S", "IQ1_M"}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Folder and GGUF file of the skills model and of models that are not it, by label."""
    folder = tmp_path_factory.mktemp("parents")
    weights, config = make.load(SKILLS)
    models = {
        "the parent": weights,
        "changed by 1 %": others.changed(weights, 0.01),
        "changed by 10 %": others.changed(weights, 0.1),
        "another seed": others.another_seed(weights),
    }
    found = {}
    for label, one in models.items():
        path = folder / label.replace(" ", "-").replace("%", "percent")
        make.save(path, one, config | {"dtype": "float32", "torch_dtype": "float32"})
        for extra in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(SKILLS / extra, path)
        found[label] = path, gguf_twin(path, folder / "twins").path
    return found


def importances(twin: Path, spread: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    """Numbers per column as an importance matrix holds them: many orders of magnitude apart."""
    random = np.random.default_rng(0)
    return {
        name: np.exp(spread * random.standard_normal(one.shape[-1])).astype(np.float32)
        for name, one in read_gguf(twin).tensors.items()
        if len(one.shape) == 2
    }


def verdicts(twins: dict[str, tuple[Path, Path]], target: Path, kind: str, important: bool) -> dict[str, Descent]:
    parent = twins["the parent"][0]
    found = {}
    for label, (_, twin) in twins.items():
        importance = importances(twin) if important else None
        child = quantize_gguf(twin, target / "child.gguf", kind, importance=importance)
        found[label] = compare(child.path, parent)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "important"),
    [(one, one in NEED_IMPORTANCE) for one in KINDS] + [(one, True) for one in WITH_MATRIX],
)
def test_the_parent_is_proved_and_others_are_not(
    twins: dict[str, tuple[Path, Path]], tmp_path: Path, kind: str, important: bool
) -> None:
    found = verdicts(twins, tmp_path, kind, important)
    assert found["the parent"].verdict == ("unproved" if kind in NO_TRACE else "proved")
    assert found["another seed"].verdict == "refuted"
    for label, distance in DISTANCES.items():
        one = found[label]
        if distance and one.verdict == "proved":
            assert one.resolution is not None and one.resolution >= distance
    assert found["changed by 10 %"].verdict != "proved"
    layers = [one for one in found["the parent"].layers if one.kind == kind]
    assert layers and all(one.reachable_error is not None and one.sqnr_db is not None for one in layers)
    # Scales in two steps move a border now and then.
    assert all(one.outside < (1e-3 if kind == "IQ4_XS" else 1e-9) for one in layers)


def odd_rows(kind: str) -> np.ndarray[Any, Any]:
    """Weights as trained models have them in a few places."""
    rows = np.random.default_rng(3).standard_normal((128, 512)).astype(np.float32) * np.float32(0.02)
    if kind == "small":
        rows *= np.float32(0.01)
    elif kind == "some small rows":
        rows[:12] *= np.float32(0.01)
        rows[12:20] *= np.float32(1e-20)
    elif kind == "zeros":
        rows[:6], rows[6:9] = 0, 0.01
    else:
        rows[np.arange(0, 128, 20), 7] = 2.0
    return rows


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        *[("small", kind) for kind in ("Q8_0", "Q6_K", "Q4_0")],
        *[("some small rows", kind) for kind in ("Q8_0", "Q5_1", "Q4_K", "Q6_K", "MXFP4")],
        *[("zeros", kind) for kind in ("MXFP4", "Q4_K")],
        *[("outliers", kind) for kind in ("Q3_K", "Q2_K", "IQ4_XS", "Q1_0")],
    ],
)
def test_odd_weights_of_the_parent_are_no_damage(odd: str, kind: str) -> None:
    """Scales of float16 end where weights are small, factors of K types vanish beside those of one large weight."""
    rows = odd_rows(odd)
    assert of_rows(rows, kind, rows)[0] == "proved"
    moved = rows.copy()
    moved[[100, 101]] = rows[[101, 100]]
    assert of_rows(moved, kind, rows)[0] != "proved"
    other = np.random.default_rng(9).permutation(rows.reshape(-1)).reshape(rows.shape)
    assert of_rows(other, kind, rows)[0] == "refuted"


@pytest.mark.parametrize("kind", ["Q4_K", "Q3_K"])
def test_a_group_is_not_emptied_by_a_factor_of_zero(kind: str) -> None:
    """Only beside a far larger group of the same block does a factor vanish."""
    rows = odd_rows("outliers")
    emptied = rows.copy()
    emptied[3, 32:64] = 0
    assert of_rows(emptied, kind, rows)[0] != "proved"


def test_outliers_cost_an_entry_of_a_table_more_but_leave_the_signs() -> None:
    rows = odd_rows("outliers")
    rows[np.arange(0, 128, 20), 7] = 6.0
    verdict, layer, found = of_rows(rows, "IQ3_S", rows)
    assert found.energy > 4 and found.outside == 0 and verdict == "unproved" and "The difference is" in layer.problem
    assert of_rows(rows[::-1].copy(), "IQ3_S", rows)[0] == "refuted"


def random_rows(kind: str) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(5)
    draw: dict[str, Callable[[], Any]] = {
        "normal": lambda: random.standard_normal((128, 512)),
        "laplace": lambda: random.laplace(size=(128, 512)),
        "student": lambda: random.standard_t(4, size=(128, 512)),
        "ternary": lambda: random.integers(-1, 2, (128, 512)),
        "binary": lambda: random.choice([-1, 1], (128, 512)),
    }
    return np.asarray(draw[kind]() * 0.05, dtype=np.float32)


@pytest.mark.parametrize("spread", ["normal", "laplace", "student"])
@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW_TABLES else []) for one in sorted(CODEBOOKS)]
)
def test_limits_of_codebooks_hold_for_any_importance(kind: str, spread: str) -> None:
    weights = random_rows(spread)
    for size in (0.0, 1.0, 2.0):
        importance = np.exp(size * np.random.default_rng(1).standard_normal(512)).astype(np.float32)
        verdict, layer, found = of_rows(weights, kind, weights, importance)
        assert verdict == ("unproved" if kind in NO_TRACE else "proved")
        # Half of what is refuted.
        assert 0.5 < found.energy < 2.05 and layer.outside == 0


@pytest.mark.parametrize(("kind", "spread"), [("IQ4_NL", "normal"), ("Q2_K", "laplace"), ("Q2_K", "student")])
def test_inputs_that_outweigh_all_others(kind: str, spread: str) -> None:
    """Scales then serve one weight of their group, and cut the others off: every model has such inputs."""
    random = np.random.default_rng(0)
    draws = {"normal": random.standard_normal, "laplace": lambda size: random.laplace(size=size)}
    draw: Callable[..., Any] = draws.get(spread, lambda size: random.standard_t(4, size=size))
    weights = draw((256, 512)).astype(np.float32) * np.float32(0.05)
    importance = np.ones(512, dtype=np.float32)
    importance[[7, 200]] = 1e7
    verdict, _, found = of_rows(weights, kind, weights, importance)
    assert verdict == "proved" and (found.local.starved > 0 or found.shrunk > 0.002 * found.weights)
    emptied = weights.copy()
    emptied[3] *= np.float32(1e-3)
    assert of_rows(emptied, kind, weights, importance)[0] != "proved"


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0", "Q2_0", "Q1_0"])
def test_levels_at_which_the_parent_lies_say_little_of_changes(kind: str) -> None:
    """Models that were trained with few levels lie in the middle of their cells, far from every border."""
    weights = random_rows("binary" if kind == "Q1_0" else "ternary")
    spread = float(np.sqrt(np.square(weights).mean()))
    noise = np.random.default_rng(2).standard_normal(weights.shape).astype(np.float32) * spread
    verdict, layer, _ = of_rows(weights, kind, weights)
    assert verdict == "proved" and layer.relative_error < 1e-3
    assert layer.resolution is not None and 0.1 < layer.resolution < 0.5
    for change in (0.01, 0.05):
        verdict, layer, _ = of_rows(weights + np.float32(change) * noise, kind, weights)
        assert verdict == "proved" and layer.resolution is not None and layer.resolution > change
    assert of_rows(weights + np.float32(0.6) * noise, kind, weights)[0] != "proved"


@pytest.mark.parametrize("spread", ["normal", "laplace", "student"])
@pytest.mark.parametrize("kind", ["TQ2_0", "Q2_0", "Q1_0", "Q2_K", "NVFP4", "Q4_0", "IQ3_S", "IQ2_XXS"])
@pytest.mark.parametrize("change", [0.001, 0.003, 0.01, 0.03])
def test_what_is_proved_is_nearer_than_the_resolution(kind: str, spread: str, change: float) -> None:
    weights = random_rows(spread)
    norm = np.float32(change * np.sqrt(np.square(weights).mean()))
    moved = weights + norm * np.random.default_rng(3).standard_normal(weights.shape).astype(np.float32)
    verdict, layer, _ = of_rows(moved, kind, weights, np.ones(512, dtype=np.float32) if kind in CODEBOOKS else None)
    if verdict == "proved":
        assert layer.resolution is not None and layer.resolution >= change


@pytest.mark.parametrize("kind", ["IQ3_S", "IQ2_XS", "Q1_0"])
def test_signs_alone_do_not_prove_sizes(kind: str) -> None:
    weights = random_rows("normal")
    importance = np.ones(512, dtype=np.float32)
    verdict, layer, _ = of_rows(weights * np.float32(0.78), kind, weights, importance)
    assert verdict == "unproved" and "times those stored" in (layer.problem or "")
    if kind != "Q1_0":
        factors = np.exp(0.1 * np.random.default_rng(4).standard_normal((128, 1))).astype(np.float32)
        verdict, layer, _ = of_rows(weights * factors, kind, weights, importance)
        assert verdict != "proved" and "rows" in (layer.problem or "")


def test_the_rules_of_signs() -> None:
    weights = np.array([[1, -1, 1, 1, 1, 1, 1, 0.1]], dtype=np.float32)
    kept = np.sign(weights)
    assert wrong_signs(weights, kept, "kept").tolist() == [0]
    assert wrong_signs(weights, -kept, "kept").tolist() == [8]
    # One is negative, which is odd: one has to be turned, and only one.
    turned = kept * np.array([1, 1, 1, 1, 1, 1, 1, -1])
    twice = turned * np.array([-1, 1, 1, 1, 1, 1, 1, 1])
    assert [wrong_signs(weights, one, "even").tolist() for one in (kept, turned, twice)] == [[1], [0], [1]]
    even = weights * np.array([-1, 1, 1, 1, 1, 1, 1, 1], dtype=np.float32)
    assert wrong_signs(even, np.sign(even), "even").tolist() == [0]
    # A block that is nothing but zeros keeps no sign.
    assert wrong_signs(weights, np.zeros_like(kept), "kept").tolist() == [0]
    assert wrong_signs(weights, np.zeros_like(kept), "even").tolist() == [0]
    assert wrong_signs(weights, -kept, "mixed").tolist() == [0]


def test_a_change_that_turns_that_many_signs() -> None:
    sample = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    change = change_of_signs(0.01, sample, "kept")
    moved = sample + change * np.random.default_rng(1).standard_normal(sample.shape)
    # For normal weights and small changes, a change s turns the share s / pi.
    assert change == pytest.approx(0.01 * math.pi, rel=0.1)
    assert (np.sign(moved) != np.sign(sample)).mean() == pytest.approx(0.01, rel=0.15)
    assert change_of_signs(0.01, sample, "even") > 2 * change
    assert change_of_signs(0.01, sample, "mixed") == math.inf
    assert change_of_signs(0.01, np.zeros((8, 8), dtype=np.float32), "kept") == math.inf


def test_codebooks_of_numbers_that_are_not_finite_are_refuted() -> None:
    weights = random_rows("normal")
    child = Matrix("x", weights.shape, "IQ3_S", (), lambda a, b: Block(weights[a:b] * np.float32(np.nan)), 3, 32, 0.0,
                   Codebook(0.17, "kept"))  # fmt: skip
    truth = Matrix("x", weights.shape, "F32", (), lambda start, stop: Block(weights[start:stop]))
    layer, verdict = judge_codebook(child, measure(child, truth, lambda values: values))
    assert verdict == "refuted" and "not finite" in (layer.problem or "")
