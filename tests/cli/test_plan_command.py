"""`quantgov plan`: reads well in a terminal, names commands that exist, and recommends nothing that the table does not carry."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

import mlflow_quantgov as qg
from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.artifact.quantizers.registry import find_quantizer
from mlflow_quantgov.artifact.quantizers.suggestions import SUGGESTIONS
from mlflow_quantgov.cli import LazyGroup, main, output
from mlflow_quantgov.errors import PolicyError, QuantgovError, UsageError
from mlflow_quantgov.evidence.targets import capture, find_target, list_targets

TARGETS = [target.name for target in list_targets()]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", *arguments])
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", TARGETS)
def test_every_target_fits_a_terminal(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_quantgov.cli.plan_command.stdout", Console(width=width, markup=False, highlight=False))
    code, out, _ = run(capsys, "--target", name)
    assert code == 0
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width, out
    assert name in out and "must gain" in out
    assert output.stdout is not None


@pytest.mark.parametrize("name", TARGETS)
def test_json_is_one_document_with_the_same_content(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--target", name, "--json")
    found = json.loads(out)
    assert code == 0 and found["target"]["name"] == name and found["policy"] == "default"
    for one in found["best"]:
        assert one["kernel"]["support"] == "optimized" and one["kernel"]["row"] and one["format_fits"]
    assert all(one["kernel"]["support"] == "unknown" for one in found["open"])
    assert len(found["best"]) + len(found["open"]) + len(found["avoid"]) == len(SUGGESTIONS)


def test_optimized_first_then_fewest_bits_and_below_four_last() -> None:
    found = qg.plan_release("cpu-llamacpp")
    bits = [one.suggestion.bits for one in found.best]
    narrow = [one.trained for one in found.best]
    assert bits == [4, 4, 4, 5, 6, 8, 3, 2] and narrow == [False] * 6 + [True] * 2
    assert found.chosen is found.best[0]
    trained = qg.plan_release("cpu-llamacpp", choose=7)
    (training,) = [step for step in trained.steps if step.checks == ("bit-width",)]
    assert "bit-width also asks" in training.note and "a loss of 2.0% at 3 bit" in training.note
    order = [step.title for step in trained.steps]
    assert order.index(training.title) < order.index("Run your own tasks on both sides")
    assert not any(step.checks == ("bit-width",) for step in found.steps)


def test_what_differs_is_shown_in_columns_and_words_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    _, gguf, _ = run(capsys, "--target", "cpu-llamacpp")
    assert "0.031" in gguf and "Llama 3 8B" in gguf and "all are made as: gguf by llama.cpp" in gguf
    _, torch, _ = run(capsys, "--target", "cpu-transformers")
    assert "emulates: the weights stay packed" in torch and "Llama 3 8B" not in torch


@pytest.mark.parametrize("name", ["gpu-vllm-hopper", "endpoint-openai"])
def test_what_no_adapter_loads_is_timed_as_it_is_served(name: str) -> None:
    commands = [
        command for step in qg.plan_release(name).steps if "benchmark" in step.checks for command in step.commands
    ]
    assert len(commands) == 1 and "--served parent.yaml quantized.yaml" in commands[0]
    target = find_target(name)
    assert target.must_improve == "speed", "an endpoint shows no memory, so that nothing else could ever pass"


def test_where_nothing_is_served_well_no_recipe_is_recommended() -> None:
    target = find_target("cpu-transformers")
    plain = target.model_copy(update={"hardware": target.hardware.model_copy(update={"cpu_flags": ("avx2",)})})
    found = qg.plan_release(plain)
    assert found.best == () and found.chosen is None and found.steps == ()
    assert any("cpu-llamacpp" in note for note in found.notes)
    volta = qg.plan_release("gpu-vllm-volta")
    assert volta.best == () and volta.open and any("measure" in note for note in volta.notes)


def test_a_captured_target_answers_what_its_template_leaves_open(tmp_path: Path) -> None:
    from mlflow_quantgov.evidence.measure.fingerprint import this_machine

    if this_machine().machine != "x86_64":
        return
    template = qg.plan_release("cpu-onnxruntime")
    assert [one.kernel.depends_on for one in template.open] == [("cpu_flags",)]
    capture("mine", find_target("cpu-onnxruntime"), tmp_path / "mine.yaml")
    found = qg.plan_release(tmp_path / "mine.yaml")
    assert all(not one.kernel.depends_on for one in (*found.best, *found.open))
    assert "capture" not in found.steps[0].commands[0]


@pytest.mark.parametrize("name", [*TARGETS])
def test_the_commands_take_what_they_are_given(name: str) -> None:
    """Each is parsed as the shell would hand it over, for every option that has a rank."""
    group = LazyGroup("quantgov")
    found = qg.plan_release(name)
    for number in range(1, max(1, len(found.best or found.open)) + 1) if found.chosen else [1]:
        for step in qg.plan_release(name, choose=number).steps:
            for line in "\n".join(step.commands).replace("\\\n", " ").splitlines():
                words = shlex.split(line) if line.startswith("quantgov ") else []
                command: click.Command | None = group if words else None
                words = words[1:]
                while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                    command = command.get_command(click.Context(command), words.pop(0))
                if command is None:
                    continue
                known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
                assert {word for word in words if word.startswith("-")} <= known, line
                command.make_parser(click.Context(command)).parse_args(list(words))


def test_every_recipe_fits_its_quantizer() -> None:
    for one in SUGGESTIONS:
        if one.quantizer is None:
            assert one.elsewhere
            continue
        quantizer = find_quantizer(one.quantizer)
        quantizer.check(dict(one.arguments), has_texts=one.calibrates)
        Recipe(quantizer=one.quantizer, version="1", arguments=dict(one.arguments))


def test_the_recipe_of_the_heredoc_is_read_as_it_stands(tmp_path: Path) -> None:
    import yaml

    for target in ("cpu-llamacpp", "cpu-onnxruntime", "gpu-vllm-hopper"):
        make = next(step for step in qg.plan_release(target).steps if "recipe" in step.title)
        text = re.search(r"<<END\n(.*)\nEND", "\n".join(make.commands), re.DOTALL)
        assert text is not None
        content = yaml.safe_load(text[1].replace("$(sha256sum calib.jsonl | cut -d' ' -f1)", "a" * 64))
        assert Recipe.model_validate(content).quantizer in text[1]


def test_a_parent_gives_sizes_and_shapes(skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = qg.plan_release("cpu-llamacpp", skills)
    assert found.parent_parameters == inspect(skills).quantization.total_parameters
    sizes = {one.suggestion.name: one.size_bytes or 0 for one in found.best}
    assert sizes["Q2_K"] < sizes["Q4_K"] < sizes["Q8_0"] < (found.parent_bytes or 0)
    code, out, _ = run(capsys, "--target", "cpu-llamacpp", "--parent", str(skills))
    assert code == 0 and "853,760 parameters" in out and "kB" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"), [("cpu-llamacpp", "Q8_0"), ("cpu-onnxruntime", "MatMulNBits 8 bit, block 32")]
)
def test_the_size_that_is_promised_is_about_the_one_that_is_made(
    skills: Path, tmp_path: Path, target: str, name: str
) -> None:
    option = next(one for one in qg.plan_release(target, skills).best if one.suggestion.name == name)
    made = find_quantizer(str(option.suggestion.quantizer)).run(skills, tmp_path, dict(option.suggestion.arguments), [])
    real = inspect(made).quantization
    assert abs(real.bits_per_weight - option.bits_per_weight) < 0.15 * real.bits_per_weight
    assert real.format == option.suggestion.format and real.bits == option.suggestion.bits


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: qg.plan_release("gpu-vllm-hoper"), UsageError, "gpu-vllm-hopper"),
        (lambda: qg.plan_release("cpu-llamacpp", choose=99), UsageError, "no option 99"),
        (lambda: qg.plan_release("cpu-llamacpp", to="@nowhere"), PolicyError, "@champion"),
        (lambda: qg.plan_release("cpu-llamacpp", "nothing/here"), QuantgovError, "nothing"),
    ],
)
def test_bad_input_is_one_clear_error(call: Any, error: type[QuantgovError], words: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert words in f"{raised.value.what} {raised.value.why} {raised.value.fix}"


def test_a_misspelt_target_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--target", "gpu-vllm-hoper")
    assert code == 2 and "Near ones are gpu-vllm-hopper" in err and "Fix: quantgov targets" in err
