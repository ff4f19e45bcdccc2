"""Quantize by a recipe, log with it, run it again: from the command line, with llama.cpp's own quantizer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.quantizers.registry import find_quantizer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_in_store: Run) -> Run:
    """Runs a command against an empty local store; gives exit code, stdout and stderr."""
    return run_in_store


def write_recipe(path: Path, **arguments: object) -> str:
    """A recipe file of llama.cpp in the installed version."""
    version = find_quantizer("llama.cpp").version()
    path.write_text(json.dumps({"quantizer": "llama.cpp", "version": version, "arguments": arguments}))
    return str(path)


@pytest.mark.slow
def test_a_recorded_recipe_is_run_again(run: Run, skills: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", type="Q4_K")
    code, out, _ = run("quantize", str(skills), "made", "--recipe", recipe, "--json")
    made = json.loads(out)
    assert code == 0 and made["path"].endswith("model-Q4_K.gguf")
    assert run("log-parent", str(skills), "--name", "parent", "--register", "skills")[0] == 0
    to = ["--parent", "models:/skills/1", "--target", "cpu-llamacpp", "--name", "q4", "--register", "skills"]
    code, out, _ = run("log", made["path"], *to, "--recipe", recipe, "--json")
    assert code == 0 and json.loads(out)["digest"] == made["digest"]
    code, out, _ = run("reproduce", "models:/skills/2", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["outcome"], found["subject"]) == ("reproduction", "pass", made["digest"])
    other = write_recipe(tmp_path / "other.yaml", type="Q4_K", output_type="Q8_0")
    code, out, err = run("reproduce", "models:/skills/2", "--recipe", other)
    assert code == 1
    assert "Q8_0" in out + err and "where the version has Q6_K" in " ".join((out + err).split())


@pytest.mark.slow
def test_what_is_wrong_with_a_recipe_is_one_clear_line(run: Run, skills: Path, tmp_path: Path) -> None:
    code, _, err = run("quantize", str(skills), "made", "--recipe", "absent.yaml")
    assert code == 2 and "absent.yaml cannot be read" in err and "Fix:" in err
    recipe = write_recipe(tmp_path / "recipe.yaml", tpye="Q4_K")
    code, _, err = run("quantize", str(skills), "made", "--recipe", recipe)
    assert code == 2 and "takes no argument 'tpye'" in " ".join(err.split()) and not Path("made").exists()
    code, _, err = run("quantize", "nowhere", "made", "--recipe", recipe)
    assert code == 2 and "nowhere does not exist" in err
    assert run("log-parent", str(skills), "--name", "parent", "--register", "skills")[0] == 0
    good = write_recipe(tmp_path / "good.yaml", type="Q8_0")
    assert run("quantize", str(skills), "made", "--recipe", good)[0] == 0
    code, _, err = run("quantize", str(skills), "made", "--recipe", good)
    assert code == 2 and "made exists" in err
    to = ["--parent", "models:/skills/1", "--target", "cpu-llamacpp", "--name", "q8", "--register", "skills"]
    code, _, err = run("log", "made/model-Q8_0.gguf", *to, "--recipe", recipe)
    assert code == 2 and "takes no argument 'tpye'" in " ".join(err.split())
    assert run("log", "made/model-Q8_0.gguf", *to)[0] == 0
    code, _, err = run("reproduce", "models:/skills/2")
    assert code == 2 and "No recipe of models:/skills/2 is known" in err and "--recipe recipe.yaml" in err


@pytest.mark.slow
def test_torchao_does_not_speak_before_us(skills: Path, tmp_path: Path) -> None:
    """It names every library of its own that does not load on this machine; a process of its own, as it does so once."""
    version = find_quantizer("torchao").version()
    recipe = {"quantizer": "torchao", "version": version, "arguments": {"config": "NoSuchConfig"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    command = ["quantize", str(skills), str(tmp_path / "made"), "--recipe", str(tmp_path / "recipe.yaml")]
    ran = subprocess.run(
        [sys.executable, "-m", "mlflow_quantgov", *command], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 2 and "no configuration 'NoSuchConfig'" in " ".join(ran.stderr.split())
    assert ran.stderr.startswith("error: ") and ran.stdout == ""
