"""Small data sets of one deployment, as files: what customers write, what they ask, and what somebody takes instead."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mlflow_quantgov.evidence.measure.calibration import assess
from mlflow_quantgov.evidence.predicates import Calibration

_OPENINGS = ("Hello", "Hi there", "Good morning", "Dear team", "To whom it may concern", "Hey")
_THINGS = ("the kettle", "my bicycle lamp", "a pair of boots", "the blue rucksack", "two garden chairs", "the heater")
_FAULTS = ("arrived with a crack", "never came", "is the wrong size", "stopped working after a week", "was sent twice")
_WISHES = ("Please send a new one", "I want my money back", "Can somebody call me", "Where do I return it")
_PLACES = ("Ardmore", "Belford", "Carrick", "Dunholm", "Eastlea", "Fenwick", "Glenross", "Harwood")
_NOUNS = ("fortress", "regiment", "railway", "cathedral", "orchestra", "glacier", "parliament", "shipyard")


def messages(count: int, seed: int) -> list[str]:
    """What customers of a shop write."""
    one = random.Random(seed)
    return [
        f"{one.choice(_OPENINGS)}, order {one.randint(10**5, 10**6)} from {one.choice(['Monday', 'May', 'last week'])}: "
        f"{one.choice(_THINGS)} {one.choice(_FAULTS)}, and {one.choice(_THINGS)} {one.choice(_FAULTS)}. "
        f"{one.choice(_WISHES)}, my number is {one.randint(10**8, 10**9)}. Thanks, customer {one.randint(1, 9999)}"
        for _ in range(count)
    ]


def encyclopedia(count: int, seed: int) -> list[str]:
    """Made-up articles, spelt as WikiText spells them: headings between signs, hyphens and numbers cut apart."""
    one = random.Random(seed)
    return [
        f" = {one.choice(_PLACES)} {one.choice(_NOUNS)} = \n The {one.choice(_NOUNS)} of {one.choice(_PLACES)} was a well @-@ "
        f"known {one.choice(_NOUNS)} , built in {one.randint(1500, 1900)} for {one.randint(1, 9)} @,@ {one.randint(100, 999)} "
        f"pounds . It stood {one.randint(1, 9)} @.@ {one.randint(1, 9)} miles from {one.choice(_PLACES)} . \n"
        for _ in range(count)
    ]


def code(count: int, seed: int) -> list[str]:
    """Small functions, which no customer sends."""
    one = random.Random(seed)
    names = ("total", "merge", "split", "parse", "render", "index", "queue", "token")
    return [
        f"def {one.choice(names)}_{one.choice(names)}(values, {one.choice(names)}={one.randint(1, 99)}):\n"
        f"    {one.choice(names)} = [{one.choice(names)}(v) for v in values if v > {one.randint(1, 99)}]\n"
        f"    return sum({one.choice(names)}) / max(1, len(values) - {one.randint(1, 9)})\n"
        for _ in range(count)
    ]


def questions(capability: str) -> list[str]:
    """The items of a task: each asks something of its own. Those of edge cases are messages that customers wrote."""
    if capability == "edge-cases":
        return messages(200, 3)
    return [
        f"A customer of {_PLACES[n % 8]} ordered {n + 3} lamps and returned {n % 7 + 1} of them; what does line {n} of the "
        f"{capability} sheet say about the {_NOUNS[n // 8 % 8]}?"
        for n in range(200)
    ]


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="calibration-"))


@cache
def task_folder() -> Path:
    """The tasks of the deployment, with their items."""
    folder = _folder() / "tasks"
    folder.mkdir()
    for name in ("multi-step-reasoning", "instruction-following", "edge-cases"):
        written(questions(name), f"tasks/{name}.jsonl")
        (folder / f"{name}.yaml").write_text(
            f"task: our-{name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}\ntest_split: test\n"
            "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: x\n"
            f"metadata: {{version: 1, capability: {name}}}\n",
            encoding="utf-8",
        )
    return folder


def written(texts: Sequence[str], name: str) -> Path:
    """A file of documents."""
    path = _folder() / name
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts), encoding="utf-8")
    return path


@cache
def assessed(
    texts: tuple[str, ...] = tuple(messages(200, 1)),
    name: str = "calib.jsonl",
    *,
    production: bool = True,
    searched: Path | None = None,
    noted: tuple[str, ...] = (),
) -> Calibration:
    """The statement that measuring these documents against a sample of production gives."""
    sample = written(messages(200, 2), "traffic.jsonl") if production else None
    return assess(
        written(texts, name), sample, tasks=searched or task_folder(), noted=noted, expectations=False
    )  # fmt: skip
