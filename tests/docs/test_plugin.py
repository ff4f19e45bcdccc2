"""The example plugin, installed into a folder of its own and used as a third party's package is."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml

import mlflow_quantgov as qg
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.runtimes.registry import runtime_for, runtime_names
from mlflow_quantgov.errors import ArtifactError, UsageError
from mlflow_quantgov.evidence.measure import kernels
from mlflow_quantgov.evidence.measure.reproduction import reproduce
from mlflow_quantgov.evidence.targets import read_target

ROOT = Path(__file__).parent.parent.parent
PLUGIN = ROOT / "examples" / "plugin"
PAGE = ROOT / "docs" / "how-to" / "add-a-format-or-runtime.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as `pip install --target` lays it down; no build backend has to be installed for it."""
    site = tmp_path / "site"
    shutil.copytree(PLUGIN / "quantgov_ternary", site / "quantgov_ternary")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    for name in [name for name in sys.modules if name.startswith("quantgov_ternary")]:
        del sys.modules[name]


def models(folder: Path) -> tuple[Path, Path]:
    """A parent that spells the alphabet, and its ternary version."""
    safetensors = pytest.importorskip("safetensors.numpy")
    weight = np.random.default_rng(0).normal(scale=0.1, size=(256, 256)).astype(np.float32)
    weight[np.arange(255), np.arange(1, 256)] = 4.0
    scale = np.abs(weight).max(axis=1)
    tensors = {"bigram.trits": np.round(weight / scale[:, None]).astype(np.int8), "bigram.scale": scale}
    for name, content in (("parent", {"bigram.weight": weight}), ("ternary", tensors)):
        (folder / name).mkdir()
        safetensors.save_file(content, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"architectures": ["BigramForCausalLM"], "model_type": "bigram"}')
    return folder / "parent", folder / "ternary"


def test_without_the_plugin_neither_is_there(tmp_path: Path) -> None:
    _, ternary = models(tmp_path)
    assert "ternary-numpy" not in runtime_names()
    with pytest.raises(UsageError, match="ternary-numpy"):
        runtime_for(ternary, "ternary-numpy")
    with contextlib.suppress(ArtifactError):
        assert inspect(ternary).quantization.format != "ternary"


def test_with_the_plugin_its_format_is_read_and_run(installed: None, tmp_path: Path) -> None:
    parent, ternary = models(tmp_path)
    facts = inspect(ternary).quantization
    assert (facts.format, facts.bits, facts.granularity, facts.total_parameters) == ("ternary", 2, "channel", 65536)
    assert runtime_names()[-1] == "ternary-numpy"
    adapter = runtime_for(ternary, "ternary-numpy")
    with adapter.open(parent) as left, adapter.open(ternary) as right:
        assert left.generate(["a"], max_tokens=3) == right.generate(["a"], max_tokens=3) == ["bcd"]
        assert right.generate(["a"], max_tokens=9, stop=["e"]) == ["bcd"]
        scores = [one.score([("ab", "cd"), ("ab", "xy")]) for one in (left, right)]
        resident = [one.facts().resident_bytes or 0 for one in (left, right)]
    assert all(one[0].is_greedy and one[0].logprob > one[1].logprob for one in scores)
    assert resident[1] < resident[0] / 3


def test_a_version_is_logged_and_loaded_in_the_third_partys_runtime(
    installed: None, new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_sqlite_database()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    target = tmp_path / "ternary-here.yaml"
    target.write_text(re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0])
    parent, ternary = models(tmp_path)
    try:
        qg.log_parent(parent, name="p", registered_model_name="parents")
        info = qg.log_model(ternary, name="t", parent="models:/parents/1", target=target)
        assert mlflow.pyfunc.load_model(info.model_uri).predict(["a"], params={"max_tokens": 3}) == ["bcd"]
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    found = kernels.confirm(
        ternary, inspect(ternary).quantization, read_target(target), weights=f"sha256:{'a' * 64}"
    )  # fmt: skip
    assert found.probed and found.side is not None and found.side.kernel == "numpy rows int8"
    assert found.lookup.support == "unknown"


def test_the_third_partys_recipe_is_run_again(installed: None, tmp_path: Path) -> None:
    parent, _ = models(tmp_path)
    recipe = qg.Recipe(quantizer="ternary", version="1.0", arguments={"threshold": 0.25})
    made = qg.quantize(parent, tmp_path / "made", recipe)
    weights = build_manifest(made).weights_digest
    found = reproduce(made, parent, recipe, weights=weights, parent_weights=weights)
    assert found.stated()["outcome"] == "pass"
    other = recipe.model_copy(update={"arguments": {"threshold": 0.3}})
    (one,) = reproduce(made, parent, other, weights=weights, parent_weights=weights).differences
    assert one.name == "bigram.trits" and "of 65,536 bytes differ" in one.problem


def test_the_page_shows_what_the_example_holds() -> None:
    text = PAGE.read_text(encoding="utf-8")
    held = "".join(path.read_text(encoding="utf-8") for path in PLUGIN.rglob("*.*") if path.suffix in {".py", ".toml"})
    shown = re.findall(r"^```(?:python|toml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(shown) == 4 and all(block in held for block in shown)
    assert yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0])["runtime"] in held
