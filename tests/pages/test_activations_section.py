"""The picture of what the parent's layers see: every bar lies on its axis, whatever a statement holds."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from releases import calibration, contents, facts_of

from mlflow_quantgov.evidence.measure.calibration.layers import compare_layers
from mlflow_quantgov.evidence.predicates import Calibration
from mlflow_quantgov.evidence.predicates.calibration import LayerRecord, Observation
from mlflow_quantgov.pages.activations_plot import activations_plot, activations_section
from mlflow_quantgov.pages.report import render_report

ERROR = st.none() | st.floats(0, 1e308)
LAYER = st.builds(
    LayerRecord,
    name=st.from_regex(r"model\.layers\.\d{1,3}\.[a-z<&\"]{1,8}", fullmatch=True),
    distance=st.floats(-1e4, 1e4),
    calibration_error=ERROR,
    production_error=ERROR,
)


@given(st.lists(LAYER, min_size=1, max_size=40))
@settings(deadline=None)
def test_every_bar_lies_within_the_picture(layers: list[LayerRecord]) -> None:
    plot = activations_plot(layers)
    for panel in (plot.distances, plot.ratios):
        for bar in panel.bars if panel else ():
            assert panel is not None
            assert panel.top - 1 <= bar["y"] <= bar["y"] + bar["height"] <= panel.bottom + 1
            assert 60 <= bar["x"] < bar["x"] + bar["width"] <= plot.width - 20
        for y, label in panel.ticks if panel else ():
            assert panel is not None and panel.top - 1 <= y <= panel.bottom + 1 and label
            assert all(abs(y - other) >= 12 for other, name in panel.ticks if name != label)
    assert len(plot.distances.bars) == len(layers) and len(plot.blocks) <= 12


def measured(layers: int = 6, *, errors: bool = True) -> Calibration:
    generator = np.random.default_rng(0)
    production = generator.normal(size=(60, layers, 8)).astype(np.float32)
    shifted = (generator.normal(size=(60, layers, 8)) + np.arange(layers)[:, None] / layers).astype(np.float32)
    found = compare_layers(shifted, production, tuple(range(layers)))
    records = tuple(
        LayerRecord(
            name=f"model.layers.{at // 2}.<b>{at}",
            distance=one,
            calibration_error=0.01 if errors else None,
            production_error=0.01 + 0.002 * at if errors else None,
        )
        for at, one in enumerate(found.distances)
    )
    pair = (60, 60)
    seen = Observation(
        parent=f"sha256:{'b' * 64}",
        library="transformers 5",
        documents=pair,
        tokens=pair,
        tokens_of_errors=pair,
        unwatched=1,
    )
    return calibration(likeness=(*calibration().likeness, found.likeness), layers=records, observation=seen)


def report(content: Calibration) -> str:
    return render_report(facts_of([*contents()[:-1], content]), None, title="chat")


def test_the_report_says_which_layers_differ_most_and_what_that_costs() -> None:
    page = report(measured())
    section = activations_section(measured())
    assert section is not None and section.ratio == pytest.approx(1.5) and section.unmeasured == 0
    assert section.farthest[0].name == "model.layers.2.<b>5" and len(section.farthest) == 5
    for words in ("What the quantizer saw", "1.50 times", "most in model.layers.2.&lt;b&gt;5: 2.00 times",
                  "1 quantized matrix could not be watched", "production over calibration data"):  # fmt: skip
        assert words in page
    assert "<b>5" not in page
    picture = re.search(r'<svg viewBox[^>]*aria-label="Distance and cost.*?</svg>', page, re.S)
    assert picture is not None
    assert len(ElementTree.fromstring(picture[0]).findall(".//rect")) == 12


def test_without_errors_there_is_one_panel_and_the_reason_why_nothing_was_seen_is_shown() -> None:
    page = report(measured(errors=False))
    assert "Output errors of 6 layers were not measured" in page and "production over calibration data" not in page
    page = report(calibration(unobserved="What the parent's layers see was not measured: <i>."))
    assert "was not measured: &lt;i&gt;." in page and "<svg" not in page.split("Calibration data:")[1].split("<h2>")[0]
