"""Endpoints: a real server answers as the same file does here, and whatever is no answer is one clear error."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.artifact.runtimes.endpoint import EndpointAdapter, EndpointRuntime, client
from mlflow_quantgov.artifact.runtimes.endpoint.answers import score_of
from mlflow_quantgov.artifact.runtimes.endpoint.description import Endpoint
from mlflow_quantgov.artifact.runtimes.llama_cpp import LlamaCppAdapter
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import ArtifactError, QuantgovError, UnreachableError, UsageError
from mlflow_quantgov.evidence.targets import find_target

PROMPTS = ["4321+8765=", "c:kettle=", "r:abcd="]
Answer = tuple[int, str, bytes]
MODELS = (200, "application/json", json.dumps({"data": [{"id": "one"}]}).encode())


def described(path: Path, **values: Any) -> Path:
    """A description of an endpoint."""
    path.write_text(json.dumps({"schema": "quantgov/endpoint/v1"} | values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def real(skills_twin: Path) -> Iterator[str]:
    """xllamacpp's OpenAI-compatible server with the skills model."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(skills_twin)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 1024, 4, 0
    parameters.cpuparams.n_threads = 2
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server


@pytest.mark.slow
def test_it_answers_as_the_file_itself_does(real: str, skills_twin: Path, tmp_path: Path) -> None:
    path = described(tmp_path / "served.json", url=real)
    adapter = find_runtime(find_target("endpoint-openai").runtime)
    assert adapter.reason_not_loadable(path) is None
    with LlamaCppAdapter().open(skills_twin, threads=2) as own, adapter.open(path) as served:
        wanted = own.generate(PROMPTS, max_tokens=8, stop=["<eos>"])
        assert served.generate(PROMPTS, max_tokens=8, stop=["<eos>"], batch=3) == wanted
        assert served.generate(["c:kettle="], max_tokens=8, stop=["a", "b", "x", "y", "tl"]) == ["ket"]
        facts = served.facts()
        timing = served.time(batch=2, prompt_tokens=16, output_tokens=4)
    assert (facts.runtime, facts.twin, facts.saw_bytes) == ("openai", "imported", False)
    assert facts.resident_bytes is None and facts.kernel is None and facts.settings["temperature"] == 0
    assert timing.prefill_tokens_per_second > 0 and timing.decode_tokens_per_second > 0


@pytest.mark.slow
def test_a_chat_endpoint_answers_with_its_own_template(real: str) -> None:
    with EndpointAdapter().open(Path("any"), url=real, api="chat") as served:
        assert len(served.generate(["hello", "c:kettle="], max_tokens=4)) == 2
        assert served.chat_template is None
        with pytest.raises(UsageError, match="log-probabilities of the prompt"):
            served.score([("a", "b")])


@pytest.mark.slow
def test_a_server_that_does_not_echo_is_told_apart_from_a_score(real: str) -> None:
    with (
        EndpointAdapter().open(Path("any"), url=real) as served,
        pytest.raises(UsageError, match="does not return log-probabilities of the prompt"),
    ):
        served.score([("c:kettle=", "kettle")])


@pytest.mark.slow
def test_a_server_that_echoes_gives_the_scores_of_the_model_behind_it(http_server, skills_twin: Path) -> None:
    """The echo is made of a real model's logits, in the layout that vLLM and the old completions API share."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp.scoring import log_probability

    own = LlamaCppAdapter().open(skills_twin, threads=1)
    lock = threading.Lock()

    def echo(path: str, asked: dict[str, Any]) -> Answer:
        if path.endswith("/models"):
            return MODELS
        with lock:
            tokens = own.tokenize(asked["prompt"])
            rows = own.logits(tokens)
        pieces = [own.detokenize([token]) for token in tokens]
        logs = [None, *(log_probability(row, token) for row, token in zip(rows, tokens[1:], strict=False))]
        tops = [None, *({own.detokenize([int(row.argmax())]): log_probability(row, int(row.argmax()))} for row in rows)]
        offsets = [sum(len(piece) for piece in pieces[:at]) for at in range(len(pieces))]
        found = {"tokens": pieces, "token_logprobs": logs, "text_offset": offsets, "top_logprobs": tops[: len(tokens)]}
        written = {"choices": [{"text": asked["prompt"], "logprobs": found}]}
        return 200, "application/json", json.dumps(written).encode()

    pairs = [("c:kettle=", "kettle"), ("c:kettle=", "kittle"), ("c:ab ", "ab"), ("4321+8765=", "21960")]
    with EndpointAdapter().open(Path("any"), url=http_server(echo)) as served:
        found = served.score(pairs)
        with pytest.raises(UsageError, match="no context"):
            served.score([("", "abc")])
    for one, other in zip(found, own.score(pairs), strict=True):
        assert (one.is_greedy, one.tokens) == (other.is_greedy, other.tokens)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
    own.close()


@pytest.mark.slow
def test_evidence_of_an_endpoint_is_imported(real: str, tmp_path: Path) -> None:
    from mlflow_quantgov.demo.models import SKILLS_TASKS
    from mlflow_quantgov.evidence.measure.task_eval import evaluate

    path = described(tmp_path / "served.json", url=real)
    digests = {"parent_weights": f"sha256:{'a' * 64}", "quantized_weights": f"sha256:{'b' * 64}"}
    found = evaluate(path, path, tasks=SKILLS_TASKS, runtime="openai", limit=2, cache=tmp_path / "cache", **digests)
    assert found.provenance.imported and found.quantized.twin == "imported"
    assert not (tmp_path / "cache" / "answers").exists()


def broken(content: bytes, kind: str = "text/html", status: int = 200) -> Callable[[str, dict[str, Any]], Answer]:
    """Lists its model, and answers every question with this."""
    return lambda path, asked: MODELS if path.endswith("/models") else (status, kind, content)


@pytest.mark.parametrize(
    ("content", "status", "error", "words"),
    [
        (b"<html>hello</html>", 200, UnreachableError, "answers with HTML"),
        (b"hello", 200, UnreachableError, "not JSON"),
        (b"[1]", 200, UnreachableError, "no object"),
        (b"", 200, UnreachableError, "not JSON"),
        (b'{"choices": []}', 200, UnreachableError, "without a text"),
        (b'{"choices": [{"text": 3}]}', 200, UnreachableError, "text is none"),
        (b'{"error": {"message": "out of memory"}}', 200, UnreachableError, "out of memory"),
        (b'{"error": {"message": "no such model"}}', 404, UsageError, "no such model"),
        (b"<html>", 401, UsageError, "refuses the request"),
        (b"", 302, UsageError, "302"),
        (b"<html>", 503, UnreachableError, "answers 503"),
    ],
)  # fmt: skip
def test_whatever_is_no_answer_is_one_clear_error(
    http_server, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, error: type[QuantgovError], words: str
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    with EndpointAdapter().open(Path("any"), url=http_server(broken(content, status=status)), retries=1) as served:
        with pytest.raises(error, match=words) as caught:
            served.generate(["a", "b"], max_tokens=2)
        assert "\n" not in caught.value.one_line() and caught.value.fix
        with pytest.raises(QuantgovError):
            served.time(batch=1, prompt_tokens=4, output_tokens=2)


def test_a_server_that_is_down_or_silent_is_one_clear_error(http_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        EndpointAdapter().open(Path("any"), url="http://127.0.0.1:1/v1", retries=1)
    hold = threading.Event()

    def silent(path: str, asked: dict[str, Any]) -> Answer:
        hold.wait(60)
        return MODELS

    with pytest.raises(UnreachableError, match="did not answer within 1 seconds"):
        EndpointAdapter().open(Path("any"), url=http_server(silent), timeout=1, retries=0)
    hold.set()


def test_a_busy_server_is_asked_again_and_the_key_goes_along(http_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("MY_KEY", "sesame")
    asked_with: list[dict[str, Any]] = []

    def busy(path: str, asked: dict[str, Any]) -> Answer:
        if path.endswith("/models"):
            return MODELS
        asked_with.append(asked)
        good = {"choices": [{"text": "yes"}], "system_fingerprint": "build-7"}
        return (429, "text/plain", b"wait") if len(asked_with) < 3 else (200, "", json.dumps(good).encode())

    url = http_server(busy).replace("http://", "http://user:secret@") + "?q=1"
    with EndpointAdapter().open(Path("any"), url=url, api_key_env="MY_KEY") as served:
        assert served.generate(["a"], max_tokens=2, stop=["s"]) == ["ye"]
        facts = served.facts()
    assert len(asked_with) == 3 and asked_with[0]["headers"]["Authorization"] == "Bearer sesame"
    assert (asked_with[0]["temperature"], asked_with[0]["seed"], asked_with[0]["model"]) == (0, 0, "one")
    assert facts.version == "build-7"
    assert not any(word in json.dumps(facts.settings) for word in ("secret", "sesame", "q=1"))
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        EndpointAdapter().open(Path("any"), url=url, api_key_env="MY_KEY")


def test_another_model_than_the_one_named_is_refused(http_server) -> None:
    with pytest.raises(UsageError, match="serves one, and not two"):
        EndpointAdapter().open(Path("any"), url=http_server(broken(b"")), model="two")


def test_what_the_protocol_cannot_give_is_refused(http_server) -> None:
    with EndpointAdapter().open(Path("any"), url=http_server(broken(b""))) as served:
        assert isinstance(served, EndpointRuntime)
        for call in (
            lambda: served.logits([1]),
            lambda: served.tokenize("a"),
            lambda: served.detokenize([1]),
            lambda: served.vocabulary_size,
        ):
            with pytest.raises(UsageError, match="endpoint does not"):
                call()
        with pytest.raises(UsageError, match="continuation"):
            served.score([("a", "")])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": "ftp://host/v1"}, "http"),
        ({"url": "file:///etc/passwd"}, "http"),
        ({"url": "http://host:99999/v1"}, "http"),
        ({"url": 3}, "a text"),
        ({"url": "http://host/v1", "api": "responses"}, "completions, chat"),
        ({"url": "http://host/v1", "timeout": 0}, "above 0"),
        ({"url": "http://host/v1", "retries": True}, "whole number"),
        ({"url": "http://host/v1", "key": "sesame"}, "one of"),
        ({}, "does not say where"),
    ],
)
def test_a_description_that_is_wrong_is_one_clear_error(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        EndpointAdapter().open(described(tmp_path / "served.yaml", **values))
    assert caught.value.fix


@pytest.mark.parametrize("text", ["{", "[]", "schema: other", "url: http://host/v1"])
def test_other_files_are_no_endpoints(tmp_path: Path, text: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    assert "quantgov/endpoint/v1" in (EndpointAdapter().reason_not_loadable(path) or "")
    with pytest.raises((ArtifactError, UsageError)):
        EndpointAdapter().open(path)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation() -> None:
    logs = {
        "tokens": ["a", " b", "c"], "token_logprobs": [None, -1.0, -2.0], "text_offset": [0, 1, 3],
        "top_logprobs": [None, {" b": -1.0}, {"x": -0.5, "c": -2.0}],
    }  # fmt: skip
    found = score_of({"choices": [{"text": "a bc", "logprobs": logs}]}, "a ", "bc", 0)
    assert (found.logprob, found.tokens, found.is_greedy) == (-3.0, 2, False)


def test_an_address_is_shown_without_its_secrets() -> None:
    assert Endpoint("http://u:p@[::1]:8080/v1/?k=1#x").public_url == "http://[::1]:8080/v1"
