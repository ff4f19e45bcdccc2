"""`quantgov calibration`: what it prints and exits with, and what it records for a version."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from mlflow_quantgov.cli import main

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(command: Callable[..., tuple[int, str, str]]) -> Run:
    """Runs a command; gives its exit code and what it printed on stdout."""
    return lambda *arguments: command(*arguments)[:2]


def questions(count: int, seed: int) -> list[str]:
    """Questions of customers, put together from parts; those of two seeds share forms and no text."""
    rng = random.Random(seed)
    things = [
        f"{a} {b}" for a in ("red", "small", "heavy", "old") for b in ("kettle", "lamp", "chair", "boot", "heater")
    ]
    return [
        f"My {rng.choice(things)} {rng.randint(10**6, 10**7)} {rng.choice(['broke', 'is late', 'leaks', 'hums'])}; "
        f"{rng.choice(['what now', 'send another', 'who can help', 'refund it'])}? {rng.choice(things)} {rng.random():.6f}"
        for _ in range(count)
    ]


def write(path: Path, documents: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents), encoding="utf-8")
    return str(path)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    write(
        folder / "items.jsonl", ["Which of the two lamps is heavier, the red or the old one?", "How old is the chair?"]
    )
    (folder / "lamps.yaml").write_text(
        "task: lamps\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: items.jsonl\ntest_split: test\n"
        "doc_to_text: '{{text}}'\ndoc_to_target: ''\noutput_type: generate_until\n",
        encoding="utf-8",
    )
    return folder


@pytest.mark.slow
def test_two_files_are_compared_and_searched_for_items_of_tasks(run: Run, tmp_path: Path, tasks: Path) -> None:
    production = write(tmp_path / "traffic.jsonl", questions(150, 1))
    clean = write(tmp_path / "clean.jsonl", questions(150, 2))
    leaky = write(
        tmp_path / "leaky.jsonl", [*questions(150, 2), "Which of the two lamps is heavier: the red or the OLD one?"]
    )
    options = ["--production", production, "--tasks", str(tasks)]
    code, out = run("calibration", "--calibration", clean, *options, "--json")
    assert (code, json.loads(out)["leaked_documents"]) == (0, 0), out
    assert json.loads(out)["searched_tasks"].startswith("sha256:")
    code, out = run("calibration", "--calibration", leaky, *options)
    assert code == 1 and "evaluation items" in out
    code, out = run("calibration", "--calibration", clean, "--production", production)
    assert "not looked for: give --tasks DIR" in out
    assert "expectations hold (great-expectations" in out or "not checked" in out


def test_a_folder_and_names_of_tasks_are_searched_one_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", questions(30, 1))
    with pytest.raises(SystemExit) as stopped:
        main(["calibration", "--calibration", file, "--production", file, "--tasks", "tasks", "--task", "gsm8k"])
    assert stopped.value.code == 2 and "searched one at a time" in capsys.readouterr().err


def test_tasks_that_are_not_there_are_one_clear_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", questions(30, 1))
    with pytest.raises(SystemExit) as stopped:
        main(["calibration", "--calibration", file, "--production", file, "--tasks", str(tmp_path / "nowhere")])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "does not exist" in said and "Traceback" not in said


@pytest.fixture
def store(new_sqlite_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local store of its own, in an empty folder."""
    uri = new_sqlite_database()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.mark.slow
def test_a_version_whose_metadata_name_a_generic_set_is_refused(
    run: Run, tmp_path: Path, store: str, tasks: Path
) -> None:
    quantized = tmp_path / "q"
    shutil.copytree(ARTIFACTS / "gptq-w4g32", quantized)
    for name in ("config.json", "quantize_config.json"):
        if (quantized / name).exists():
            found = json.loads((quantized / name).read_text(encoding="utf-8"))
            (found["quantization_config"] if name == "config.json" else found)["dataset"] = "wikitext2"
            (quantized / name).write_text(json.dumps(found), encoding="utf-8")
    shutil.copy(ARTIFACTS / "optimum-int8" / "tokenizer.json", quantized)
    files = ["--calibration", write(tmp_path / "c.jsonl", questions(120, 1)),
             "--production", write(tmp_path / "p.jsonl", questions(120, 2))]  # fmt: skip
    assert run("log-parent", str(ARTIFACTS / "parent-bf16"), "--name", "p", "--register", "chat")[0] == 0
    code, _ = run(
        "log", str(quantized), "--parent", "models:/chat/1", "--target", "gpu-vllm-hopper", "--name", "q",
        "--register", "chat", *files, "--license", "ours", "--tasks", str(tasks),
    )  # fmt: skip
    assert code == 0
    code, out = run("calibration", "models:/chat/2", *files, "--license", "ours", "--tasks", str(tasks), "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "fail")
    evidence = json.loads(run("check", "models:/chat/2", "--to", "@champion", "--json")[1])
    check = next(one for one in evidence["checks"] if one["check"] == "calibration")
    assert check["outcome"] == "fail" and "wikitext2" in check["reason"]
    model = mlflow.MlflowClient().get_model_version("chat", "2")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model.name}/{model.version}"))
    statements = [
        json.loads(one.read_text(encoding="utf-8")) for one in folder.glob("quantgov/evidence/calibration-*.json")
    ]
    content = statements[-1]["predicate"]
    assert (content["noted"], content["generic_set"], content["data"]["license"]) == (["wikitext2"], "wikitext", "ours")
    assert content["data"]["tokens"] > 1000 and content["searched_tasks"].startswith("sha256:")
    assert "kettle" not in json.dumps(statements)


@pytest.mark.slow
def test_the_parents_layers_are_compared_for_a_version_and_the_terminal_names_those_that_differ_most(
    run: Run, tmp_path: Path, store: str, skills: Path
) -> None:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf
    from mlflow_quantgov.demo.models.skills_data import document

    rng = random.Random(4)
    quantized = quantize_gguf(gguf_twin(skills, tmp_path / "twin").path, tmp_path / "q.gguf", "Q4_0").path
    files = ["--calibration", write(tmp_path / "c.jsonl", questions(30, 1)),
             "--production", write(tmp_path / "p.jsonl", [document(rng)[:200] for _ in range(30)])]  # fmt: skip
    assert run("log-parent", str(skills), "--name", "p", "--register", "chat")[0] == 0
    code, _ = run("log", str(quantized), "--parent", "models:/chat/1", "--target", "cpu-llamacpp", "--name", "q",
                  "--register", "chat")  # fmt: skip
    assert code == 0
    code, out = run("calibration", "models:/chat/2", *files)
    assert (
        code == 0
        and "layers that differ most (14 layers, 30 and 30 documents; errors of their outputs)" in " ".join(out.split())
    )
    assert "self_attn.o_proj" in out and "activations" in out
    code, out = run("calibration", "models:/chat/2", *files, "--json", "--no-activations")
    assert code == 0 and "activations" not in {one["name"] for one in json.loads(out)["numbers"]["tests"]}
