"""One side served and the other run here: asked the very same, and every difference that is not the quantization is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.runtimes.interface import render_chat
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.confounders import confounders
from mlflow_quantgov.evidence.measure.task_eval import evaluate
from mlflow_quantgov.evidence.predicates import Side, TaskEval

DIGESTS: dict[str, Any] = {"parent_weights": "sha256:" + "a" * 64, "quantized_weights": "sha256:" + "b" * 64}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<me>{% endif %}"
)


@pytest.fixture(scope="module")
def served(skills_q8: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """xllamacpp's OpenAI-compatible server with the 8-bit model, described for both of its interfaces."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(skills_q8)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 1024, 4, 0
    parameters.cpuparams.n_threads, parameters.warmup = 2, False
    server = xllamacpp.Server(parameters)
    folder = tmp_path_factory.mktemp("served")
    described = {}
    for api in ("completions", "chat"):
        described[api] = folder / f"{api}.json"
        content = {"schema": "quantgov/endpoint/v1", "url": f"{server.listening_address}/v1", "api": api}
        described[api].write_text(json.dumps(content), encoding="utf-8")
    yield described
    del server


def evaluated(parent: Path, quantized: Path, tasks: Path, cache: Path, **changes: Any) -> TaskEval:
    options: dict[str, Any] = {"limit": 12, "settings": {"threads": 2}, "cache": cache} | changes
    return evaluate(parent, quantized, tasks=tasks, **DIGESTS, **options)


@pytest.mark.slow
def test_either_side_may_be_served(
    served: dict[str, Path], skills: Path, skills_q8: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    here = evaluated(skills, skills_q8, skills_tasks, tmp_path)
    mixed = evaluated(skills, served["completions"], skills_tasks, tmp_path)
    assert not here.provenance.imported and mixed.provenance.imported
    assert (mixed.parent.runtime, mixed.quantized.runtime) == ("llama.cpp", "openai")
    assert any("different runtimes" in one for one in mixed.warnings)
    # The parent ran here before and is not asked again; the server answers as the file does here.
    assert mixed.settings["parent_answers"].startswith("3 of 3")
    for one, other in zip(here.tasks, mixed.tasks, strict=True):
        assert [item.prompt_sha256 for item in one.items] == [item.prompt_sha256 for item in other.items]
        same = sum(a.quantized.output == b.quantized.output for a, b in zip(one.items, other.items, strict=True))
        assert same >= 11
    turned = evaluated(served["completions"], skills_q8, skills_tasks, tmp_path)
    assert (turned.parent.runtime, turned.quantized.runtime) == ("openai", "llama.cpp")
    # Nobody knows whether a server repeats itself: the parent was asked twice.
    assert turned.summary[turned.tasks[0].task]["asked_twice"] == 12
    assert not turned.settings["determinism"]["parent"]["deterministic"]


@pytest.fixture
def turns() -> Iterator[tuple[str, list[list[dict[str, str]]]]]:
    """A server with a chat interface that answers with the last word asked, and what it was asked."""
    seen: list[list[dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": "one"}]})

        def do_POST(self) -> None:
            messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
            seen.append(messages)
            self._send({"choices": [{"message": {"content": messages[-1]["content"].split()[-1]}}]})

        def _send(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


def chat_of(url: str, tmp_path: Path) -> Path:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"schema": "quantgov/endpoint/v1", "url": url, "api": "chat"}), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_chat_endpoint_is_asked_in_turns_and_so_is_the_other_side(
    turns: tuple[str, list[list[dict[str, str]]]], skills_q8: Path, task_folder: Path, tmp_path: Path
) -> None:
    url, seen = turns
    task = task_folder / "holds.yaml"
    task.write_text(task.read_text() + "num_fewshot: 1\nfewshot_config: {sampler: first_n}\nfewshot_split: test\n")
    found = evaluated(skills_q8, chat_of(url, tmp_path), task_folder, tmp_path / "cache", limit=3)
    assert [[one["role"] for one in asked] for asked in seen] == [["user", "assistant", "user"]] * 3
    assert sorted(asked[-1]["content"] for asked in seen) == ["say 0 ab", "say 1 ab", "say 2 ab"]
    assert [item.quantized.output for item in found.tasks[0].items] == ["ab"] * 3
    assert any("a template that cannot be seen; here it was no template" in one for one in found.warnings)
    assert found.tasks[0].few_shot == 1


@pytest.mark.slow
def test_an_answer_that_the_task_begins_is_no_question_for_a_chat_endpoint(
    turns: tuple[str, list[list[dict[str, str]]]], skills_q8: Path, task_folder: Path, tmp_path: Path
) -> None:
    task = task_folder / "holds.yaml"
    task.write_text(task.read_text() + "gen_prefix: 'It is'\n")
    with pytest.raises(UsageError, match="gen_prefix"):
        evaluated(skills_q8, chat_of(turns[0], tmp_path), task_folder, tmp_path / "cache")


@pytest.mark.slow
def test_a_model_that_is_silent_in_a_conversation_is_named(
    served: dict[str, Path], skills_q8: Path, skills_tasks: Path, tmp_path: Path
) -> None:
    """The skills model knows no conversations: asked in a server's default template it says nothing."""
    with pytest.raises(EvidenceError, match="The quantized version answered nothing to all 2 items"):
        evaluated(skills_q8, served["chat"], skills_tasks, tmp_path, limit=2)


@pytest.mark.slow
def test_no_answer_of_a_server_is_kept_once_the_run_is_done(
    served: dict[str, Path], skills_tasks: Path, tmp_path: Path
) -> None:
    evaluated(served["completions"], served["completions"], skills_tasks, tmp_path, limit=2, settings={})
    assert not list(tmp_path.glob("answers/*")) and not list(tmp_path.glob("batches/*"))


def test_an_answer_that_was_begun_follows_the_prompt() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "It is"}]
    assert render_chat(TEMPLATE, turns) == "<user>a<me>It is"
    assert render_chat(TEMPLATE, turns[:1]) == "<user>a<me>"
    assert render_chat(None, turns) == "aIt is"


def test_what_differs_beside_the_quantization_is_named() -> None:
    one = Side(weights="sha256:" + "a" * 64, runtime="r", version="1", settings={"threads": 2, "device": "cpu"})
    assert confounders(one, one) == []
    other = one.model_copy(update={"version": "2", "settings": {"threads": 4, "device": "cpu", "context": 9}})
    words = confounders(one, other)
    assert (
        len(words) == 2 and "different versions of r: 1 and 2" in words[0] and "different threads: 2 and 4" in words[1]
    )
    assert "different runtimes" in confounders(one, other.model_copy(update={"runtime": "s"}))[0]
