"""The command line: JSON contracts, exit codes, and one clear error instead of a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_quantgov.cli import COMMANDS, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and "Usage:" in out


@pytest.mark.parametrize("arguments", [(), ("audit",)])
def test_a_group_alone_explains_itself(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 0 and "Usage:" in out and err == ""


def test_inspect_prints_the_contract(capsys: pytest.CaptureFixture[str], skills: Path) -> None:
    code, out, err = run(capsys, "inspect", str(skills), "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["format"], found["bits"], found["quantized_parameters"]) == ("full-precision", None, 0)
    assert {"bits_per_weight", "group_size", "granularity", "symmetric", "activation_bits", "kv_cache_bits", "desc_act",
            "total_parameters", "size_bytes", "producer", "calibration_required", "layers", "warnings"} <= found.keys()  # fmt: skip


def test_compare_has_the_three_exit_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def write(name: str, values: list[int]) -> str:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps({"id": str(i), "score": v}) for i, v in enumerate(values)))
        return str(path)

    ones = write("ones", [1] * 200)
    for name, values, expected in (("same", [1] * 200, 0), ("worse", [0] * 200, 1), ("few", [1] * 195 + [0] * 5, 3)):
        code, out, _ = run(capsys, "compare", "--parent", ones, "--quantized", write(name, values), "--json")
        assert code == expected
        assert json.loads(out)["outcome"] == {0: "pass", 1: "fail", 3: "inconclusive"}[expected]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "does-not-exist"], "does not exist"),
        (["log", "x", "--parent", "models:/a/1", "--target", "nope", "--name", "n", "--register", "r"], ""),
        (["compare", "--parent", "a", "--quantized", "b"], "does not exist"),
        (["schema", "no-such-kind"], "no kind"),
        (["promote", "models:/none/1", "--to", "@champion"], ""),
        (["inspect"], "Missing argument"),
        (["no-such-command"], "No such command"),
    ],
)
def test_bad_input_is_one_clear_error_with_a_fix(
    capsys: pytest.CaptureFixture[str],
    new_sqlite_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_sqlite_database())
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err and "Fix:" in err and "Traceback" not in err + out


def test_a_truncated_model_is_one_clear_error(capsys: pytest.CaptureFixture[str], skills: Path, tmp_path: Path) -> None:
    shutil.copytree(skills, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, out, err = run(capsys, "inspect", str(tmp_path / "m"), "--json")
    assert code == 2 and err == ""
    assert {"message", "why", "fix"} == json.loads(out)["error"].keys()


def test_a_server_that_is_down_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    try:
        code, _, err = run(capsys, "audit", "log")
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    assert code == 2 and "does not answer" in err and "Fix:" in err


def test_a_policy_with_a_typo_starts_no_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mlflow_quantgov.policy.loader import load_policy

    policy = tmp_path / "p.yaml"
    policy.write_text(load_policy().text.replace("least_bits", "leest_bits"))
    code, _, err = run(capsys, "server", "--policy", str(policy))
    assert code == 2 and "did you mean 'least_bits'" in err


def test_the_server_cannot_be_started_ungated(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "server", "--registry-store-uri", "sqlite:///x.db")
    assert code == 2 and "ungated" in err


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, mlflow_quantgov; heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'great_expectations', "
        "'mlflow', 'numpy'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_inspecting_loads_neither_torch_nor_mlflow(skills: Path) -> None:
    script = (
        f"import sys; from mlflow_quantgov.cli import main\ntry: main(['inspect', {str(skills)!r}, '--json'])\n"
        "except SystemExit: print(sorted({'torch', 'mlflow', 'rich', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_brackets_in_names_and_remedies_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow_quantgov.cli.output import print_decision
    from mlflow_quantgov.policy.decision import CheckResult, Decision

    check = CheckResult("task-eval", "missing", "no [red]evidence[/nothing]", "pip install 'mlflow-quantgov[eval]'")
    decision = Decision(
        allowed=False,
        destination="@champion",
        model="a[/b]",
        version="1",
        policy_name="[bold]p",
        policy_digest="sha256:0",
        mode="enforce",
        checks=(check,),
        self_audit=(),
        labels=("chosen by [x]",),
    )
    print_decision(decision)
    said = capsys.readouterr().out
    for words in ("a[/b]", "[bold]p", "[red]evidence[/nothing]", "mlflow-quantgov[eval]", "chosen by [x]"):
        assert words in said
