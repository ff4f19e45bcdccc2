"""What goes wrong for a person: one clear line with `Fix:`, the exit code of a usage error, and nothing registered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_quantgov.cli import main

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"
PARENT, QUANTIZED, GGUF = ARTIFACTS / "parent-bf16", ARTIFACTS / "gptq-w4g32", ARTIFACTS / "tiny-Q4_0.gguf"
SKILLS_TASKS = Path(__file__).parent.parent.parent / "src" / "mlflow_quantgov" / "demo" / "tasks" / "skills"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, _mlflow_tables: Path) -> str:
    """A local store with versions 1 to 3 of `chat`: a parent, a GPTQ and a GGUF of it. No test here may change it."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{shutil.copy(_mlflow_tables, folder / 'mlflow.db')}"
    to = ["--register", "chat", "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        for arguments in (
            ["log-parent", str(PARENT), "--name", "parent", *to],
            ["log", str(QUANTIZED), "--parent", "models:/chat/1", "--target", "gpu-vllm-hopper", "--name", "gptq", *to],
            ["log", str(GGUF), "--parent", "models:/chat/1", "--target", "cpu-llamacpp", "--name", "gguf", *to],
        ):
            with pytest.raises(SystemExit) as stopped:
                main(arguments)
            assert not stopped.value.code
    return uri


@pytest.fixture
def client(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    """A client of that store, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    mlflow.set_tracking_uri(database)
    mlflow.set_registry_uri(database)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture
def refused(client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must fail as a usage error and leave the registry as it was; gives what it said."""

    def run(*arguments: str) -> str:
        before = _state(client)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert stopped.value.code == 2, (out, err)
        assert "Traceback" not in out + err and out == ""
        said = " ".join(err.split())
        assert said.count("Fix:") == 1
        assert _state(client) == before
        return said

    return run


def _state(client: mlflow.MlflowClient) -> list[str]:
    """Everything that a half-finished command could have left behind."""
    versions = [f"{one.name}/{one.version}" for one in client.search_model_versions()]
    models = [one.name for one in client.search_registered_models()]
    return sorted([*versions, *models, *(one.model_id for one in client.search_logged_models(["0"]))])


def log_arguments(path: Path, **changes: str) -> list[str]:
    options = {"parent": "models:/chat/1", "target": "gpu-vllm-hopper", "name": "n", "register": "new"} | changes
    return ["log", str(path), *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_a_truncated_model_is_not_logged(refused: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(QUANTIZED, broken)
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    assert weights.name in refused(*log_arguments(broken))


def test_an_unknown_target_names_the_near_ones(refused: Run) -> None:
    assert "gpu-vllm-hopper" in refused(*log_arguments(QUANTIZED, target="gpu-vllm-hoper"))


def test_a_missing_extra_is_named(refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert "mlflow-quantgov[eval]" in refused("evaluate", "models:/chat/3", "--tasks", str(SKILLS_TASKS))


def test_a_missing_runtime_is_named(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    text = SKILLS_TASKS / "text.jsonl"
    assert "mlflow-quantgov[gguf]" in refused("fidelity", "models:/chat/3", "--text", str(text))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "either on a text or on the tokens"),
        (("--text", "a", "--parent-logits", "b"), "either on a text or on the tokens"),
        (("--text", "a", "--quantized-logits", "b"), "beside those of the parent"),
        (("--parent-logits", "b", "--served", "c", "d"), "beside no endpoint"),
        (("--parent-logits", "none.kld"), "none.kld does not exist"),
        (("--parent-logits", "half.jsonl"), "does not begin with `_logits_`"),
        (("--text", "half.jsonl"), "line 1 is no JSON"),
        (("--text", "half.jsonl", "--served", "no.yaml", "no.yaml"), "line 1 is no JSON"),
    ],
)
def test_fidelity_on_nothing_on_two_things_or_on_half_a_file(refused: Run, options: tuple[str, ...], said: str) -> None:
    Path("half.jsonl").write_text('{"text": "ab')
    assert said in refused("fidelity", "models:/chat/3", *options)


def test_a_runtime_without_an_adapter_names_those_that_have_one(refused: Run) -> None:
    said = refused("evaluate", "models:/chat/2", "--tasks", str(SKILLS_TASKS))
    assert "'vllm'" in said and "transformers" in said


@pytest.mark.parametrize("name", ["no-such-folder", "a-file", "empty"])
def test_a_task_folder_that_is_none(refused: Run, name: str) -> None:
    Path("empty").mkdir()
    Path("a-file").touch()
    assert name in refused("evaluate", "models:/chat/2", "--tasks", name)


def test_a_parent_that_is_not_registered(refused: Run) -> None:
    assert "chat" in refused(*log_arguments(QUANTIZED, parent="models:/chat/9"))


def test_a_version_that_does_not_exist(refused: Run) -> None:
    assert "chat" in refused("check", "models:/chat/9", "--to", "@champion")


def test_asking_for_promotion_where_nothing_is_gated_names_doctor(refused: Run) -> None:
    assert "quantgov doctor" in refused("promote", "models:/chat/2", "--to", "@champion")


def test_a_misspelt_policy_asked_what_if(refused: Run) -> None:
    Path("p.yaml").write_text("schema: quantgov/policy/v1\nname: x\ngate: {}\n")
    said = refused("check", "models:/chat/2", "--to", "@champion", "--policy", "p.yaml")
    assert "did you mean 'gates'" in said


def test_production_without_calibration_is_not_dropped_silently(refused: Run) -> None:
    assert "--calibration" in refused(*log_arguments(QUANTIZED), "--production", "traffic.jsonl")


def test_a_full_precision_model_is_not_logged_as_a_quantized_one(refused: Run) -> None:
    assert "quantgov log-parent" in refused(*log_arguments(PARENT))


def test_a_parent_must_be_a_registered_version(refused: Run) -> None:
    assert "no registered version" in refused(*log_arguments(QUANTIZED, parent=str(PARENT)))


@pytest.mark.parametrize(("option", "value"), [("register", "a/b:c"), ("register", ""), ("name", "a/b"), ("name", " ")])
def test_names_that_mlflow_would_refuse_half_way(refused: Run, option: str, value: str) -> None:
    assert "cannot be the name" in refused(*log_arguments(QUANTIZED, **{option: value}))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("chat/2", "Fix: models:/chat/2"),
        ("models:/chat", "names no version"),
        ("models:/chat/99999999999999999999", "There is no"),
        ("models:/nobody/1", "nobody"),
        ("nonsense", "neither a folder nor a version"),
    ],
)
def test_uris_that_name_no_version(refused: Run, uri: str, words: str) -> None:
    assert words in refused("check", uri, "--to", "@champion")


def test_a_drill_that_cannot_run_is_not_recorded_as_one_that_failed(refused: Run, tmp_path: Path) -> None:
    assert "does not hold" in refused("drill", "models:/chat/1", "--store", str(tmp_path / "gone"))


@pytest.mark.parametrize("place", ["/proc/nowhere", "a-file"])
def test_an_archive_that_cannot_be_written(refused: Run, place: str) -> None:
    Path("a-file").touch()
    assert "cannot be written" in refused("archive", "models:/chat/1", "--store", place)


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "models:/chat/2", "-o", "/nonexistent/r.html"),
        ("report", "models:/chat/2", "-o", "."),
        ("targets", "capture", "mine", "--output", "/nonexistent/x.yaml"),
        ("targets", "capture", "../a b:c"),
        ("targets", "capture", "gpu", "--from", "gpu-vllm-hopper"),
        ("restore", "models:/chat/1", "/proc/x", "--store", "archive"),
        ("demo", "--quick", "--folder", "/proc/x"),
        ("compare", "--parent", ".", "--quantized", "."),
        ("fidelity", "models:/chat/3", "--text", "."),
        ("attach", "models:/chat/2", "."),
        ("inspect", "models:/chat/2"),
    ],
)
def test_ordinary_bad_paths_are_no_defect_of_ours(refused: Run, arguments: tuple[str, ...]) -> None:
    said = refused(*arguments)
    assert "defect" not in said and "Unexpected" not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no documents"),
        (b'{"text": "one"}\n{"text": "tw', "line 2 is no JSON"),
        (b"GGUF\x03\x00\x00\x00", "binary"),
        ("words".encode("utf-16"), "UTF-16"),
        (b'{"words": 1}', "neither `text` nor `messages`"),
        (b"huge", "larger than 256 MB"),
    ],
)
@pytest.mark.parametrize("option", ["--calibration", "--production"])
def test_a_calibration_file_that_cannot_be_used(
    client: mlflow.MlflowClient, refused: Run, option: str, content: bytes, words: str
) -> None:
    Path("good.jsonl").write_text('{"text": "an ordinary document"}\n')
    with Path("bad.jsonl").open("wb") as file:
        file.write(content)
        if content == b"huge":
            file.truncate(2**30)
    files = {"--calibration": "good.jsonl", "--production": "good.jsonl"} | {option: "bad.jsonl"}
    arguments = [word for pair in files.items() for word in pair]
    for command in (["calibration"], ["calibration", "models:/chat/2"], log_arguments(QUANTIZED)):
        said = refused(*command, *arguments)
        assert "bad.jsonl" in said and words in said
    for model in client.search_logged_models(["0"]):
        beside = client.list_logged_model_artifacts(model.model_id, "quantgov")
        assert not [one.path for one in beside if "evidence" in one.path]


def test_a_target_that_exists_is_not_overwritten(refused: Run) -> None:
    Path("mine.yaml").write_text("pinned")
    assert "mine.yaml exists" in refused("targets", "capture", "mine")
    assert Path("mine.yaml").read_text() == "pinned"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prot", "5000"), "--port"),
        (("--backend-store-uri", "nonsense://x"), "SQLite"),
        (("--backend-store-uri", "mysql://user:secret@host/db"), "SQLite"),
        (("--port", "99999999"), "cannot listen"),
        (("--port", "x"), "cannot listen"),
    ],
)
def test_a_server_that_cannot_start(refused: Run, arguments: tuple[str, ...], words: str) -> None:
    said = refused("server", *arguments)
    assert words in said and "secret" not in said


def test_a_port_that_is_taken(refused: Run) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "cannot listen" in refused("server", "--port", str(other.getsockname()[1]))


def test_refused_destinations_name_the_near_one(
    client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["check", "models:/chat/2", "--to", "champion"])
    assert stopped.value.code == 1
    assert "did you mean @champion? Fix: quantgov check models:/chat/2 --to @champion" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_gone_is_no_refusal_and_no_traceback(options: list[str]) -> None:
    command = [sys.executable, "-m", "mlflow_quantgov", "schema", *options]
    reader, pipe = os.pipe()
    os.close(reader)  # before it starts: it may have written everything before we come to that
    ran = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False)
    os.close(pipe)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, b"")
