"""Endpoints that return log-probabilities: perplexity and top tokens are theirs, and KL is truly a lower bound."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.runtimes.endpoint.answers import PromptToken
from mlflow_quantgov.errors import EvidenceError, QuantgovError, UnreachableError, UsageError
from mlflow_quantgov.evidence.measure import fidelity
from mlflow_quantgov.evidence.measure.fidelity_served import lumped, pieces

WEIGHTS = {"parent_weights": "sha256:" + "a" * 64, "quantized_weights": "sha256:" + "b" * 64}
TEXTS = ["the cat sat on the mat", "a dog lay on the rug and the cat sat on the dog", "mat"]


class Echo:
    """An OpenAI-compatible server that echoes prompts with the log-probabilities of a model of characters."""

    def __init__(
        self, model: Any, most: int = 96, spoil: Callable[[dict[str, Any]], Any] = lambda found: found
    ) -> None:
        self.model, self.most, self.spoil, self.asked = model, most, spoil, 0

    def answer(self, asked: dict[str, Any]) -> tuple[int, Any]:
        self.asked += 1
        if asked["logprobs"] > self.most:
            return 400, {"error": {"message": f"logprobs must be at most {self.most}"}}
        prompt = asked["prompt"]
        tokens = self.model.tokenize(prompt)
        rows = self.model._logs[tokens]
        names = [self.model.detokenize([token]) for token in range(self.model.vocabulary_size)]
        values, tops = [None], [None]
        for row, token in zip(rows[:-1], tokens[1:], strict=True):
            best = np.argsort(-row)[: asked["logprobs"]]
            values.append(float(row[token]))
            tops.append({names[one]: float(row[one]) for one in [*best, token]})
        written = int(rows[-1].argmax())
        found = {
            "tokens": [*prompt, names[written]], "token_logprobs": [*values, -0.5],
            "text_offset": list(range(len(prompt) + 1)), "top_logprobs": [*tops, {names[written]: -0.5}],
        }  # fmt: skip
        return 200, {"choices": [{"text": prompt + names[written], "logprobs": self.spoil(found)}]}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Echo], Path]]:
    """Starts a server for a model and describes it in a file."""
    servers = []

    def start(echo: Echo) -> Path:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, found = (200, {"data": [{"id": "one"}]}) if not body else echo.answer(json.loads(body))
                content = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        path = tmp_path / f"{len(servers)}.json"
        url = f"http://127.0.0.1:{server.server_port}/v1"
        path.write_text(json.dumps({"schema": "quantgov/endpoint/v1", "url": url, "context": 40, "retries": 0}))
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pair(bigram: Callable[..., Any]) -> tuple[Any, Any]:
    """Two models of characters, without tokens that are equally likely."""
    found = bigram("the cat sat on the mat\n" * 9), bigram("a dog lay on a rug, the cat sat\n" * 9)
    for seed, one in enumerate(found):
        one._logs += np.random.default_rng(seed).normal(scale=0.1, size=one._logs.shape).astype(np.float32)
        one._logs -= np.logaddexp.reduce(one._logs, axis=1, keepdims=True)
    return found


def test_all_but_kl_is_exact_and_kl_is_a_lower_bound(
    serve: Callable[[Echo], Path], pair: tuple[Any, Any], write_jsonl: Callable[..., Path]
) -> None:
    text = write_jsonl("text.jsonl", TEXTS)
    said: list[str] = []
    found = fidelity.measure_served(
        serve(Echo(pair[0])),
        serve(Echo(pair[1])),
        text=text,
        progress=lambda message, _: said.append(message),
        **WEIGHTS,
    )
    whole = {one: fidelity.score(*pair, one, 32) for one in TEXTS}
    # The second text is longer than the context of 40, of which 8 are left: its second part begins anew.
    assert [one.tokens for one in found.documents] == [21, len(TEXTS[1]) - 2, 2]
    first, exact = found.documents[0], whole[TEXTS[0]]
    assert first.parent_nll == pytest.approx(exact.parent_nll, rel=1e-5)
    assert first.quantized_nll == pytest.approx(exact.quantized_nll, rel=1e-5)
    assert first.same_top == exact.same_top
    assert 0.5 * exact.kl < first.kl <= exact.kl
    assert found.summary["kl_is_lower_bound"] and found.distributions == "top-k" and found.settings["top"] == 20
    assert any("lower bound" in one for one in found.warnings)
    assert found.provenance.imported and found.parent.twin == "imported"
    assert any("tokens on both sides" in one for one in said)
    found.verify_summary()


def test_a_server_that_lists_fewer_tokens_is_asked_for_fewer(
    serve: Callable[[Echo], Path], pair: tuple[Any, Any], write_jsonl: Callable[..., Path]
) -> None:
    text = write_jsonl("text.jsonl", TEXTS[:1])
    found = fidelity.measure_served(serve(Echo(pair[0])), serve(Echo(pair[1], most=5)), text=text, **WEIGHTS)
    more = fidelity.measure_served(serve(Echo(pair[0])), serve(Echo(pair[1])), text=text, **WEIGHTS)
    assert found.settings["top"] == 5 and found.summary["kl_mean"] <= more.summary["kl_mean"] + 1e-12


def test_the_same_model_behind_both_addresses_is_seen(
    serve: Callable[[Echo], Path], pair: tuple[Any, Any], write_jsonl: Callable[..., Path]
) -> None:
    text = write_jsonl("text.jsonl", [f"{'the cat sat on ' * 8}{chr(97 + n)}" for n in range(12)])
    found = fidelity.measure_served(serve(Echo(pair[0])), serve(Echo(pair[0])), text=text, **WEIGHTS)
    assert found.summary["outcome"] == "fail" and found.summary["kl_max"] == 0.0


def test_servers_that_split_differently_are_refused(
    serve: Callable[[Echo], Path], pair: tuple[Any, Any], write_jsonl: Callable[..., Path]
) -> None:
    other = Echo(pair[1], spoil=lambda found: found | {"tokens": [f"{one}." for one in found["tokens"]]})
    with pytest.raises(EvidenceError, match="different tokens"):
        fidelity.measure_served(serve(Echo(pair[0])), serve(other), text=write_jsonl("text.jsonl", TEXTS), **WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda found: None, UsageError),
        (lambda found: found | {"top_logprobs": None}, UsageError),
        (lambda found: found | {"top_logprobs": [{}] * len(found["tokens"])}, UsageError),
        (lambda found: found | {"text_offset": ["a"] * len(found["tokens"])}, UsageError),
        (lambda found: found | {"token_logprobs": [None] * len(found["tokens"])}, UnreachableError),
        (lambda found: found | {"token_logprobs": [0.7] * len(found["tokens"])}, UnreachableError),
        (lambda found: found | {"top_logprobs": [{"a": -0.1, "b": -0.1}] * len(found["tokens"])}, UnreachableError),
        (lambda found: found | {"top_logprobs": [{"a": "x"}] * len(found["tokens"])}, UnreachableError),
    ],
)
def test_answers_that_are_none_are_one_clear_error(
    serve: Callable[[Echo], Path],
    pair: tuple[Any, Any],
    write_jsonl: Callable[..., Path],
    spoil: Callable[[dict[str, Any]], Any],
    error: type[QuantgovError],
) -> None:
    with pytest.raises(error) as caught:
        fidelity.measure_served(
            serve(Echo(pair[0])), serve(Echo(pair[1], spoil=spoil)), text=write_jsonl("t.jsonl", TEXTS), **WEIGHTS
        )
    assert caught.value.fix and "\n" not in caught.value.one_line()


rows = st.lists(st.floats(-12, 12), min_size=12, max_size=12)


@given(rows, rows, st.integers(1, 12), st.integers(0, 11))
def test_joining_tokens_never_makes_the_divergence_larger(
    parent: list[float], quantized: list[float], top: int, token: int
) -> None:
    logs = []
    for row in (parent, quantized):
        values = np.array(row) - np.logaddexp.reduce(row)
        best = sorted(range(12), key=lambda one: -values[one])[:top]
        logs.append((values, PromptToken("t", values[token], {str(one): float(values[one]) for one in {*best, token}})))
    (p, left), (q, right) = logs
    exact = float((np.exp(p) * (p - q)).sum())
    assert lumped(left, right) <= exact + 1e-9


@given(st.text(max_size=200), st.integers(4, 50))
def test_pieces_are_the_text_and_fit(text: str, room: int) -> None:
    found = pieces(text, room)
    assert "".join(found) == text
    assert all(0 < len(one.encode("utf-8", "surrogatepass")) <= room for one in found)
