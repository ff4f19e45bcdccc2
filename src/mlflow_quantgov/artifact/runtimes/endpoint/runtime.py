"""A model that somebody else serves: greedy answers, scores where the server gives them, and no look at its weights."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mlflow_quantgov.artifact.runtimes.endpoint.answers import (
    PromptToken,
    cut,
    no_scores,
    nonsense,
    prompt_tokens_of,
    score_of,
    text_of,
)
from mlflow_quantgov.artifact.runtimes.endpoint.client import Client
from mlflow_quantgov.artifact.runtimes.endpoint.description import Endpoint
from mlflow_quantgov.artifact.runtimes.interface import RequestTiming, Runtime, RuntimeFacts, Score, Timing
from mlflow_quantgov.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "openai"
Found = TypeVar("Found")
MAX_TOGETHER = 64
"""Most requests at once."""
_STOPS = 4
"""Stop strings that every server takes; further ones are cut here alone."""


@dataclass(frozen=True)
class _Streamed:
    """Moments (`time.perf_counter`) and tokens of one answer."""

    sent: float
    first: float
    """Arrival of the first text."""
    last: float
    read: int
    written: int


class EndpointRuntime(Runtime):
    """One served model.

    Args:
        endpoint: Where it is and how to ask it.

    Raises:
        UnreachableError: The server is down or is none of this kind.
        UsageError: It does not serve the model, or the key is missing.
    """

    name = NAME

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = Client(endpoint)
        self._endpoint = replace(endpoint, model=self._served(endpoint))
        self._fingerprint = "unknown"

    def _served(self, endpoint: Endpoint) -> str:
        """Name of the model to ask for, compared with what the server lists."""
        listed = self._client.get("/models").get("data")
        if not isinstance(listed, list):
            raise nonsense("no list of models")
        names = [str(one["id"]) for one in listed if isinstance(one, dict) and "id" in one]
        if endpoint.model is None and len(names) == 1:
            return names[0]
        if endpoint.model is None or endpoint.model not in names:
            raise UsageError(
                f"{endpoint.public_url} serves {', '.join(names[:10]) or 'no model'}"
                f"{f', and not {endpoint.model}' if endpoint.model else ''}.",
                why="An answer of another model would be evidence about that one.",
                fix="name one of them as `model`",
            )
        return endpoint.model

    def facts(self) -> RuntimeFacts:
        """What can be known from outside; nobody here saw the bytes that answer."""
        return RuntimeFacts(
            runtime=NAME,
            version=self._fingerprint,
            library="OpenAI-compatible endpoint",
            kernel=None,
            dequantized=False,
            resident_bytes=None,
            parameter_types={},
            twin="imported",
            settings={
                "url": self._endpoint.public_url,
                "model": self._endpoint.model,
                "api": self._endpoint.api,
                "temperature": 0,
                "seed": self._endpoint.seed,
                "context": self._endpoint.context,
            },
            saw_bytes=False,
        )

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Refused: the protocol has no tokens.

        Raises:
            UsageError: Always.
        """
        self._cannot("show its token ids")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Refused: the protocol has no tokens.

        Raises:
            UsageError: Always.
        """
        self._cannot("show its token ids")

    @property
    def vocabulary_size(self) -> int:
        """Refused: the protocol has no tokens.

        Raises:
            UsageError: Always.
        """
        self._cannot("show its vocabulary")

    @property
    def context_length(self) -> int:
        """As the description says."""
        return self._endpoint.context

    @property
    def chat_template(self) -> str | None:
        """None: with `api: chat` the server renders its own."""
        return None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Refused: no server returns them.

        Raises:
            UsageError: Always.
        """
        self._cannot("return logits")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-probability of each (context, continuation), where the server echoes a prompt with its log-probabilities.

        Raises:
            UsageError: It does not.
        """
        if self._endpoint.api != "completions":
            raise no_scores()
        for index, (_, continuation) in enumerate(pairs):
            if not continuation:
                raise UsageError(
                    f"Pair {index} has a continuation without tokens of its own: ''.",
                    why="An empty continuation has no probability to compare.",
                    fix="give every item a continuation that is not empty",
                )

        def one(index: int) -> Score:
            context, continuation = pairs[index]
            asked = {"prompt": context + continuation, "echo": True, "logprobs": 1, "max_tokens": 1}
            return score_of(self._post("/completions", asked), context, continuation, index)

        return self._together(one, len(pairs), 8)

    def prompt_tokens(self, texts: Sequence[str], top: int) -> list[list[PromptToken]]:
        """Log-probabilities of every token of some texts but the first, where the server echoes them.

        Args:
            texts: Each fits into the context.
            top: Most likely tokens to ask for at each place; 5 are what every such server gives.

        Raises:
            UsageError: It does not echo, or does not give so many.
        """
        if self._endpoint.api != "completions":
            raise no_scores()

        def one(index: int) -> list[PromptToken]:
            asked = {"prompt": texts[index], "echo": True, "logprobs": top, "max_tokens": 1}
            return prompt_tokens_of(self._post("/completions", asked), texts[index])

        return self._together(one, len(texts), 8)

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        """Greedy answers, `batch` requests at once."""
        return self._answers([self._asked(prompt, max_tokens) for prompt in prompts], max_tokens, stop, batch)

    def converse(
        self,
        conversations: Sequence[Sequence[dict[str, str]]],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        batch: int = 8,
    ) -> list[str]:
        """Greedy answers to conversations; with `api: chat` the server renders them by its own template.

        Raises:
            UsageError: A conversation ends with a turn of the assistant, which this protocol does not go on with.
        """
        if self._endpoint.api != "chat":
            return super().converse(conversations, max_tokens=max_tokens, stop=stop, batch=batch)
        if any(one[-1]["role"] == "assistant" for one in conversations):
            raise UsageError(
                "A task begins the answer itself (`gen_prefix`), which an endpoint with `api: chat` does not go on with.",
                why="Without those words it would be another question.",
                fix="use `api: completions` in the endpoint's description, or take `gen_prefix` out of the task",
            )
        bodies = [{"messages": [dict(turn) for turn in one], "max_tokens": max_tokens} for one in conversations]
        return self._answers([("/chat/completions", body) for body in bodies], max_tokens, stop, batch)

    def _answers(
        self, requests: Sequence[tuple[str, dict[str, Any]]], max_tokens: int, stop: Sequence[str], batch: int
    ) -> list[str]:
        """Texts that the server gives, cut at the first stop string."""
        if max_tokens < 1 or not 1 <= batch <= MAX_TOGETHER:
            raise UsageError(
                f"generate() was asked for {max_tokens} tokens in batches of {batch}.",
                why=f"An answer has at least one token, and 1 to {MAX_TOGETHER} requests are sent at once.",
                fix="use max_tokens >= 1 and a batch from 1 to 64",
            )
        stops = [text for text in stop if text]

        def one(index: int) -> str:
            path, asked = requests[index]
            limits = {"stop": stops[:_STOPS]} if stops else {}
            return cut(text_of(self._post(path, asked | limits)), stops)

        return self._together(one, len(requests), batch)

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        """Time streamed answers: tokens as the server counts them, network and queue included.

        Prompts are random words, none twice, so that no cache of prompts answers. An answer that ends early counts by
        the tokens that it has.

        Raises:
            UsageError: The server does not count tokens, or writes fewer than two.
        """
        if min(batch, prompt_tokens, output_tokens) < 1 or batch > MAX_TOGETHER:
            raise UsageError("A load needs a batch of 1 to 64, a prompt and an output.", fix="choose another load")
        words = random.Random(time.time_ns())  # noqa: S311 (not a secret; another prompt each time)
        prompts = [" ".join(str(words.randrange(10)) for _ in range(max(1, prompt_tokens // 2))) for _ in range(batch)]
        start = time.perf_counter()
        found = self._together(lambda index: self._streamed(prompts[index], output_tokens + 1), batch, batch)
        first, last = max(one.first for one in found), max(one.last for one in found)
        read, written = sum(one.read for one in found), sum(one.written - 1 for one in found)
        if read < 1 or written < 1 or last <= first:
            raise UsageError(
                "The endpoint did not count its tokens, or wrote fewer than two.",
                why="Speed is tokens per second.",
                fix="use a server that answers `stream_options: {include_usage: true}`",
            )
        requests = tuple(RequestTiming(one.first - one.sent, one.last - one.sent) for one in found)
        return Timing(read / (first - start), written / (last - first), requests)

    def close(self) -> None:
        """Nothing to free: the server is not ours."""

    def _streamed(self, prompt: str, max_tokens: int) -> _Streamed:
        """One answer, as its parts arrived."""
        path, asked = self._asked(prompt, max_tokens)
        asked |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        arrivals: list[float] = []
        sent = time.perf_counter()
        usage: dict[str, Any] = {}
        for moment, event in self._client.stream(path, self._common() | asked):
            if event.get("choices"):
                arrivals.append(moment)
            if isinstance(event.get("usage"), dict):
                usage = event["usage"]
        if not arrivals:
            raise nonsense("a streamed answer without events")
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        read, written = (count if isinstance(count, int) else 0 for count in counts)
        return _Streamed(sent, arrivals[0], arrivals[-1], read, written)

    def _asked(self, prompt: str, max_tokens: int) -> tuple[str, dict[str, Any]]:
        """Path and body of a request for an answer."""
        if self._endpoint.api == "chat":
            return "/chat/completions", {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
        return "/completions", {"prompt": prompt, "max_tokens": max_tokens}

    def _common(self) -> dict[str, Any]:
        return {"model": self._endpoint.model, "temperature": 0, "seed": self._endpoint.seed}

    def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, self._common() | asked)
        fingerprint = answer.get("system_fingerprint")
        if isinstance(fingerprint, str) and fingerprint:
            self._fingerprint = fingerprint[:100]
        return answer

    @staticmethod
    def _together(one: Callable[[int], Found], count: int, batch: int) -> list[Found]:
        """Results in order, several requests at once; the first error ends the rest."""
        with ThreadPoolExecutor(max_workers=batch) as pool:
            waiting = [pool.submit(one, index) for index in range(count)]
            try:
                return [future.result() for future in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @staticmethod
    def _cannot(what: str) -> NoReturn:
        raise UsageError(
            f"An endpoint does not {what}.",
            why="The OpenAI protocol has no such question.",
            fix="measure the model's own files in the runtime that serves them",
        )
