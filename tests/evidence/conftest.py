"""Parts that the tests of evidence share: a small language model of its own kind, texts, and built predicates."""

from __future__ import annotations

import inspect
import json
import pydoc
import random
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlflow_quantgov.artifact.runtimes.interface import Runtime, RuntimeFacts, Score, Timing
from mlflow_quantgov.evidence.predicates import Answer, Provenance, Side, TaskEval, TaskItem, TaskResult

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))


class BigramModel(Runtime):
    """A character bigram model, counted from a text: the smallest language model there is."""

    name = "bigram"

    def __init__(self, text: str, template: str | None = None) -> None:
        size = len(CHARACTERS)
        counts = np.full((size, size), 0.01)
        tokens = self.tokenize(text)
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1.0)
        self._logs = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
        self._template = template
        self.asked: list[str] = []

    def facts(self) -> RuntimeFacts:
        return RuntimeFacts("bigram", "1", "numpy", None, False, self._logs.nbytes, {"float32": 1}, "own-files", {})

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return [CHARACTERS.index(one) for one in text if one in CHARACTERS]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(CHARACTERS[token] for token in tokens)

    @property
    def vocabulary_size(self) -> int:
        return len(CHARACTERS)

    @property
    def context_length(self) -> int:
        return 32

    @property
    def chat_template(self) -> str | None:
        return self._template

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        assert 1 <= len(tokens) <= self.context_length
        return self._logs[list(tokens)]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        found = []
        for context, continuation in pairs:
            self.asked.append(context)
            tokens = self.tokenize(context + continuation)
            rows = self._logs[tokens[-len(continuation) - 1 : -1]]
            wanted = tokens[-len(continuation) :]
            logs = rows[np.arange(len(wanted)), wanted]
            found.append(Score(float(logs.sum()), bool((rows.argmax(axis=1) == wanted).all()), len(wanted)))
        return found

    def generate(
        self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = (), batch: int = 8
    ) -> list[str]:
        answers = []
        for prompt in prompts:
            self.asked.append(prompt)
            token, answer = self.tokenize(prompt)[-1], ""
            while len(answer) < max_tokens and not any(one in answer for one in stop):
                token = int(self._logs[token].argmax())
                answer += CHARACTERS[token]
            answers.append(min((answer.split(one)[0] for one in stop), key=len, default=answer))
            self.answered(len(answers))
        return answers

    def time(self, *, batch: int, prompt_tokens: int, output_tokens: int) -> Timing:
        raise NotImplementedError

    def close(self) -> None:
        self.asked.clear()


@pytest.fixture
def bigram() -> Callable[..., BigramModel]:
    """Makes a bigram model from a text (and a chat template)."""
    return BigramModel


@pytest.fixture(scope="session")
def python_texts() -> list[str]:
    """Some hundred documents of one domain: docstrings of Python's own library."""
    found: dict[str, None] = {}
    modules = ["argparse", "asyncio", "collections", "datetime", "decimal", "email.message", "http.client", "logging",
               "os", "pathlib", "random", "shutil", "socket", "statistics", "subprocess", "tarfile", "threading",
               "unittest", "unittest.mock", "urllib.request", "zipfile", "inspect", "typing", "ssl", "mailbox"]  # fmt: skip
    for module in modules:
        loaded = pydoc.locate(module)
        for _, owner in [("", loaded), *inspect.getmembers(loaded, inspect.isclass)]:
            for _, one in inspect.getmembers(owner):
                text = inspect.getdoc(one) if callable(one) else None
                if text and len(text) > 150:
                    found.setdefault(textwrap.dedent(text)[:1500])
    texts = sorted(found)
    random.Random(7).shuffle(texts)
    assert len(texts) > 400
    return texts


@pytest.fixture(scope="session")
def support_texts() -> list[str]:
    """Some hundred documents of another domain: messages of customers, put together from parts."""
    rng = random.Random(11)
    openings = ["Hello", "Hi there", "Good morning", "Dear team", "To whom it may concern", "Hey"]
    things = [
        "the kettle",
        "my bicycle lamp",
        "a pair of boots",
        "the blue rucksack",
        "two garden chairs",
        "the heater",
    ]
    faults = [
        "arrived with a crack",
        "never came",
        "is the wrong size",
        "stopped working after a week",
        "was sent twice",
    ]
    wishes = ["Please send a new one", "I want my money back", "Can somebody call me", "Where do I return it"]
    return [
        f"{rng.choice(openings)}, order {rng.randint(10**5, 10**6)} from {rng.choice(['Monday', 'May', 'last week'])}: "
        f"{rng.choice(things)} {rng.choice(faults)}, and {rng.choice(things)} {rng.choice(faults)}. "
        f"{rng.choice(wishes)}, my number is {rng.randint(10**8, 10**9)}. Thanks, customer {rng.randint(1, 9999)}"
        for _ in range(400)
    ]


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Sequence[str]], Path]:
    """Writes documents as JSON lines and returns the file."""

    def write(name: str, documents: Sequence[str]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents), encoding="utf-8")
        return path

    return write


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A task that generates, scored by the folder's own Python, with ten items in five groups."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"id": f"item-{n}", "prompt": f"say {n} ab", "want": "ab", "passage": f"p{n // 2}"} for n in range(10)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "scores.py").write_text(
        "def process_results(doc, results):\n    return {'holds': float(doc['want'] in results[0])}\n", encoding="utf-8"
    )
    (folder / "base.yaml").write_text(
        "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: items.jsonl\ntest_split: test\n"
        "doc_to_text: '{{prompt}}'\n", encoding="utf-8"
    )  # fmt: skip
    (folder / "holds.yaml").write_text(
        "include: base.yaml\ntask: holds\noutput_type: generate_until\ndoc_to_target: '{{want}}'\n"
        "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 6\n  do_sample: false\n"
        "process_results: !function scores.process_results\n"
        "metric_list:\n  - metric: holds\n    aggregation: mean\n    higher_is_better: true\n"
        "metadata:\n  version: 1.0\n  capability: instruction-following\n  group_by: passage\n", encoding="utf-8"
    )  # fmt: skip
    return folder


@pytest.fixture
def provenance() -> Provenance:
    """Who measured."""
    return Provenance(measured_at=datetime(2026, 11, 23, tzinfo=UTC), tool_version="0")


@pytest.fixture
def task_eval(provenance: Provenance) -> Callable[..., TaskEval]:
    """Builds a task evaluation from scores of both sides."""

    def build(parent: Sequence[float], quantized: Sequence[float], **changes: Any) -> TaskEval:
        items = tuple(
            TaskItem(
                id=str(n), prompt_sha256="0" * 64, parent=Answer(score=p, output=f"p{p}"), quantized=Answer(score=q)
            )
            for n, (p, q) in enumerate(zip(parent, quantized, strict=True))
        )
        task = TaskResult(
            task="t", task_digest=DIGEST, capability="c", metric="m", higher_is_better=True,
            output_type="generate_until", items=items,
        )  # fmt: skip
        side = Side(weights=DIGEST, runtime="r", version="1")
        records = {"provenance": provenance, "parent": side, "quantized": side.model_copy(update={"weights": OTHER})}
        return TaskEval.measured(**records, settings={}, tasks=(task,), **changes)

    return build


@pytest.fixture(scope="session")
def skills() -> Path:
    """The skills model, full precision."""
    from mlflow_quantgov.demo.models import SKILLS

    return SKILLS


@pytest.fixture(scope="session")
def skills_tasks() -> Path:
    """Its tasks."""
    from mlflow_quantgov.demo.models import SKILLS_TASKS

    return SKILLS_TASKS


@pytest.fixture(scope="session")
def skills_q2(skills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The skills model at 2 bit, quantized by llama.cpp."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    folder = tmp_path_factory.mktemp("skills")
    return quantize_gguf(gguf_twin(skills, folder).path, folder / "Q2_K.gguf", "Q2_K").path


@pytest.fixture(scope="session")
def skills_q8(skills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The skills model at 8 bit, quantized by llama.cpp."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    folder = tmp_path_factory.mktemp("skills8")
    return quantize_gguf(gguf_twin(skills, folder).path, folder / "Q8_0.gguf", "Q8_0").path
