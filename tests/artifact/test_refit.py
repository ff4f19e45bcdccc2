"""Codes that are the nearest ones at another scale than the one stored, as an importance matrix leaves them."""

from __future__ import annotations

import numpy as np
import pytest
from ggml_rows import Rows, of_rows

KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1"]
SHAPE = (256, 576)


def weights_of(seed: int = 0) -> Rows:
    rows = np.random.default_rng(seed).standard_t(5, SHAPE) * 0.02
    return rows.astype(np.float32)


def few_that_count(seed: int = 0) -> Rows:
    """An importance matrix of a model in which one input of a hundred is far larger than the others."""
    random = np.random.default_rng(seed)
    found = np.exp(1.5 * random.standard_normal(SHAPE[1]))
    found[random.choice(SHAPE[1], SHAPE[1] // 100)] *= 1e4
    return found.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_fitted_to_few_weights_leave_the_parent_proved(kind: str) -> None:
    parent = weights_of()
    verdict, layer, found = of_rows(parent, kind, parent, few_that_count())
    assert verdict == "proved" and layer.outside < 1e-4
    # It is the other scales that hold them.
    assert found.refitted > 0.01 * found.weights
    assert of_rows(weights_of(1), kind, parent, few_that_count())[0] == "refuted"


@pytest.mark.slow
@pytest.mark.parametrize("important", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_change_is_proved_that_is_larger_than_what_would_have_shown(kind: str, important: bool) -> None:
    parent, importance = weights_of(), few_that_count() if important else None
    change = np.random.default_rng(2).standard_normal(SHAPE) * np.sqrt(np.square(parent).mean())
    proved = []
    for share in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
        child = (parent + share * change).astype(np.float32)
        verdict, layer, _ = of_rows(child, kind, parent, importance)
        if verdict == "proved":
            assert layer.resolution is not None and layer.resolution >= share
            proved.append(share)
    assert proved and max(proved) <= 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_scales_that_no_fit_gives_are_not_excused(kind: str) -> None:
    parent, importance = weights_of(), few_that_count()
    row = np.ones(SHAPE, dtype=np.float32)
    row[7] = 1.2
    verdict, layer, _ = of_rows(parent, kind, parent, importance, stretch=row)
    assert verdict == "unproved" and layer.problem, "scales of one row were changed"
    some = np.ones(SHAPE, dtype=np.float32)
    some[:, 64:96] = 1.5
    assert of_rows(parent, kind, parent, importance, stretch=some)[0] != "proved", "scales of some inputs were changed"
    groups = np.ones(SHAPE, dtype=np.float32)
    groups.reshape(-1, 32)[::40] = 3.0
    assert of_rows(parent, kind, parent, importance, stretch=groups)[0] != "proved", "one group in forty was blown up"
