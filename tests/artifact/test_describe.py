"""The facts in words, the same on the terminal and in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.describe import headline, rows
from mlflow_quantgov.artifact.inspect import inspect, inspect_model
from mlflow_quantgov.artifact.quantization import Quantization
from mlflow_quantgov.cli import main

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"


def test_a_quantized_model() -> None:
    found = inspect_model(ARTIFACTS / "gptq-w4g32-desc").quantization
    assert headline(found) == "gptq, 4 bit"
    said = rows(found)
    assert said["scales"] == "one per group of 32, symmetric"
    assert said["act-order"] == "yes"
    assert said["parameters"] == "30,720 of 47,296 quantized (65.0%)"
    assert said["calibration data"] == "required"


def test_a_full_precision_model_has_no_rows_about_scales() -> None:
    found = inspect_model(ARTIFACTS / "parent-bf16").quantization
    assert headline(found) == "full-precision, bfloat16"
    assert set(rows(found)) == {"bits per weight", "parameters", "size"}


def test_mixed_widths_are_listed_with_most_weights_first() -> None:
    found = inspect_model(ARTIFACTS / "autoround-w4g32-mixed").quantization
    assert rows(found)["layers"].split(" x ")[1].startswith("4 bit")
    assert "8 bit" in rows(found)["layers"]


@pytest.mark.parametrize(("size", "words"), [(12, "12 bytes"), (1_500, "1.5 kB"), (2_600_000_000, "2.6 GB")])
def test_a_size_is_in_a_unit_in_which_it_can_be_read(size: int, words: str) -> None:
    found = replace(inspect_model(ARTIFACTS / "parent-bf16").quantization, size_bytes=size)
    assert rows(found)["size"] == words


def test_the_command_prints_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    path = ARTIFACTS / "bnb-nf4-double"
    with pytest.raises(SystemExit):
        main(["inspect", str(path)])
    said = " ".join(capsys.readouterr().out.split())
    for label, value in rows(inspect_model(path).quantization).items():
        assert f"{label} {value}" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("autoround-w4g32-mixed", "auto-round, mixed, mostly 4 bit"),
        ("hqq-layouts", "hqq, mixed, 1 to 8 bit"),
        ("awq-w4g32", "awq, 4 bit"),
    ],
)
def test_the_headline_does_not_give_one_width_for_several(name: str, words: str) -> None:
    assert headline(inspect_model(ARTIFACTS / name).quantization) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fp8-block", "one per block of 32 x 32, symmetric"),
        ("ct-fp8-block-short", "one per block of 64 x 64, symmetric"),
        ("ct-mxfp8", "one per group of 32, symmetric"),
        ("torchao-int4g32", "one per group of 32, symmetric"),
    ],
)
def test_blocks_of_rows_and_columns_have_two_sides(name: str, words: str) -> None:
    found = inspect_model(ARTIFACTS / name).quantization
    assert rows(found)["scales"] == words
    assert Quantization.from_dict(found.to_dict()) == found


def test_what_no_tensor_holds_is_not_counted_as_nothing() -> None:
    said = rows(inspect(ARTIFACTS / "onnx-sklearn").quantization)
    assert said["parameters"] == "not counted: none is stored as a tensor" and "bits per weight" not in said


def test_the_numbers_of_an_adapter_are_said_to_be_its_own() -> None:
    said = rows(inspect(ARTIFACTS / "adapter-lora").quantization)
    assert said["bits per weight"] == "32 in the adapter alone, without its base"
    assert said["parameters"] == "896 in the adapter alone"
