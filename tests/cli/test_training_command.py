"""A training is stated from the command line and from Python, and `check` compares what it names; nothing is gated here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

import mlflow_quantgov as qg
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.signing import load_signer, make_key
from mlflow_quantgov.gate.facts.gathering import gather_client

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import descent_parents as parents
import descent_quantizers as make

PARENT = Path(__file__).parents[1] / "data" / "artifacts" / "parent-bf16"
Run = Callable[..., tuple[int, str, str]]
STATED = ["--run", "r1", "--steps", "1000", "--code", "v1"]


@pytest.fixture
def run(run_in_store: Run, tmp_path: Path) -> Run:
    """Commands against a store with an original, its trained checkpoint, and the checkpoint at 2 bit: `chat`, 1 to 3."""
    weights, config = make.load(PARENT)
    trained = parents.changed(weights, 0.05)
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n')
    for name, one in (("original", weights), ("trained", trained)):
        make.save(tmp_path / name, one, config | {"dtype": "float32"})
        code, _, err = run_in_store("log-parent", name, "--name", name, "--register", "chat")
        assert code == 0, err
    make.write_gptq(tmp_path / "w2", trained, config, 2, 32)
    to = ["--parent", "models:/chat/1", "--target", "gpu-vllm-hopper", "--name", "w2", "--register", "chat"]
    code, _, err = run_in_store("log", "w2", *to)
    assert code == 0, err
    return run_in_store


def width(run: Run) -> dict[str, str]:
    """What `check` says of the width."""
    _, out, _ = run("check", "models:/chat/3", "--to", "@champion", "--json")
    return next(one for one in json.loads(out)["checks"] if one["check"] == "bit-width")


@pytest.mark.slow
def test_a_training_is_stated_and_what_it_names_is_compared(run: Run, tmp_path: Path) -> None:
    assert "needs quantization-aware training, and none is recorded" in width(run)["reason"]
    said = ["training", "models:/chat/3", "--checkpoint", "models:/chat/2", *STATED, "--data", "data.jsonl", "--json"]
    code, out, err = run(*said)
    assert code == 0, err
    assert json.loads(out)["kind"] == "training"
    reason = width(run)["reason"]
    assert "needs quantization-aware training" not in reason and "checkpoint" not in reason
    assert "No version of the same parent at 4 bit or more was evaluated first" in reason
    statement = qg.record_training(
        "models:/chat/3", "models:/chat/2", run="r2", steps=5, data="sha256:" + "5" * 64, code_version="v2"
    )
    content = statement.content()
    assert (content.run, content.steps, content.data_digest) == ("r2", 5, "sha256:" + "5" * 64)
    assert content.checkpoint_uri == "models:/chat/2" and content.checkpoint.startswith("sha256:")
    code, out, _ = run("report", "models:/chat/3", "--to", "@champion", "--output", "report.html")
    assert code in {0, 3}, out
    assert "models:/chat/2" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint": "models:/chat/1"}, "nothing was trained"),
        ({"checkpoint": "models:/chat/3"}, "not a full-precision checkpoint"),
        ({"checkpoint": "models:/chat/9"}, "models:/chat/9"),
        ({"checkpoint": "trained"}, "not a registered version"),
        ({"data": "absent.jsonl"}, "absent.jsonl"),
        ({"data": "sha256:5"}, "sha256:5"),
        ({"run": " "}, "with its run"),
        ({"steps": "0"}, "steps"),
        ({"code": ""}, "the version of its code"),
    ],
)
def test_what_cannot_be_stated_is_one_clear_line(run: Run, change: dict[str, str], words: str) -> None:
    values = {"checkpoint": "models:/chat/2", "run": "r1", "steps": "10", "data": "data.jsonl", "code": "v1"} | change
    code, _, err = run(
        "training", "models:/chat/3", *(part for key, one in values.items() for part in (f"--{key}", one))
    )
    said = " ".join(err.split())
    assert code in {1, 2} and words in said and "Traceback" not in said, said


@pytest.mark.slow
def test_it_is_signed_by_a_key(run: Run, tmp_path: Path) -> None:
    key = make_key("ada", tmp_path / "people")[0]
    said = ["training", "models:/chat/3", "--checkpoint", "models:/chat/2", *STATED, "--data", "data.jsonl"]
    code, out, err = run(*said, "--key", str(key))
    assert code == 0, out + err
    facts = gather_client(mlflow.MlflowClient(), "chat", "3")
    (signature,) = [one for found in facts.evidence if found.kind == "training" for one in found.signatures]
    assert (signature.key, signature.standing) == (load_signer(key).public.id, "untrusted")
    code, _, err = run(*said, "--key", str(tmp_path / "nobody.pem"))
    assert code == 2 and "Traceback" not in err


@pytest.mark.slow
def test_python_says_the_same(run: Run) -> None:
    with pytest.raises(QuantgovError, match="nothing was trained"):
        qg.record_training("models:/chat/3", "models:/chat/1", run="r", steps=1, data="data.jsonl", code_version="v")
