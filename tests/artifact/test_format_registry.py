"""Third parties' readers, through a real installed entry point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.errors import UnknownFormatError, UsageError

CODE = """
from mlflow_quantgov.artifact.formats.assemble import Layers, assemble
from mlflow_quantgov.artifact.formats.interface import Format
from mlflow_quantgov.artifact.quantization import LayerQuantization


class Ternary(Format):
    name = "ternary"

    def detect(self, files):
        return any(name.endswith(".trits") for name in files.tensors)

    def read(self, files):
        layers = Layers()
        for name, one in files.tensors.items():
            if name.endswith(".trits"):
                layers.add(LayerQuantization(name.removesuffix(".trits"), 2, None, one.shape), [name])
        return assemble(files, layers, format=self.name, method=None, symmetric=True, producer=None, calibration_required=None)
"""
CONFIG = {"quantization_config": {"quant_method": "ternary"}}
TENSORS = {"layer.trits": np.zeros((4, 8), np.int8)}


def install(folder: Path, target: str) -> None:
    info = folder / "quantgov_registry_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantgov-ternary\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mlflow_quantgov.formats]\nternary = {target}\n")
    (folder / "quantgov_registry_example.py").write_text(CODE)


def test_a_third_partys_format(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(TENSORS, CONFIG)
    with pytest.raises(UnknownFormatError, match="ternary"):
        inspect(folder)
    site = tmp_path / "site"
    site.mkdir()
    install(site, "quantgov_registry_example:Ternary")
    monkeypatch.syspath_prepend(str(site))
    facts = inspect(folder).quantization
    assert (facts.format, facts.bits, facts.total_parameters) == ("ternary", 2, 32)


def test_a_reader_that_cannot_be_loaded(
    model_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "quantgov_registry_example:Missing")
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(UsageError, match="ternary"):
        inspect(model_folder(TENSORS, CONFIG))
