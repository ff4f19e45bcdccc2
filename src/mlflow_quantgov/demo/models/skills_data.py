"""What the small skills model learns and is asked: sums, copies, reversals, and sentences from a little grammar.

Numbers are written least significant digit first, because each answer digit then depends only on what was already
written. Everything is drawn from a seeded generator, so the shipped items can be made again:

    python -m mlflow_quantgov.demo.models.skills_data
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from mlflow_quantgov.demo.models import SKILLS_TASKS

EOS = "<eos>"
ITEMS = 300
ITEM_SEED = 20261123
"""Seed of the shipped items; training draws from other seeds and leaves these items out."""


def _words(text: str) -> list[str]:
    return text.split()


_ADJECTIVES = _words("dusty small quiet heavy bright narrow broken warm wooden grey clever patient hollow distant kind")
_PEOPLE = _words(
    "baker sailor teacher miller farmer nurse painter carpenter driver gardener clerk porter singer doctor"
)
_THINGS = _words(
    "ladder basket lantern kettle table window bridge letter wagon barrel mirror blanket hammer candle boat"
)
_PLACES = _words("harbour market garden kitchen station valley library workshop forest cellar mill school church field")
_PAST = _words(
    "carried mended painted counted lifted washed followed opened measured sold found moved cleaned borrowed"
)
_TIMES = ["before noon", "at night", "in the morning", "after the rain", "last winter", "on Sunday", "once a week"]
_REASONS = [
    "because nobody else had the time",
    "although the road was long",
    "while the others were asleep",
    "so that the guests could see it",
    "and nobody asked why",
    "until the light was gone",
]


def addition(rng: random.Random) -> tuple[str, str]:
    """One sum of two four-digit numbers, all digits reversed: `4321+8765=` -> `21960`."""
    left, right = rng.randrange(1000, 10000), rng.randrange(1000, 10000)
    return f"{str(left)[::-1]}+{str(right)[::-1]}=", f"{left + right:05d}"[::-1]


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(4, 7)))


def copying(rng: random.Random) -> tuple[str, str]:
    """Prompt and answer of one copy: `c:word=` -> `word`."""
    word = _word(rng)
    return f"c:{word}=", word


def reversal(rng: random.Random) -> tuple[str, str]:
    """Prompt and answer of one reversal: `r:word=` -> `drow`."""
    word = _word(rng)
    return f"r:{word}=", word[::-1]


SKILLS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "addition": addition,
    "copying": copying,
    "reversal": reversal,
}


def sentence(rng: random.Random) -> str:
    """One sentence of the grammar."""
    person, other = rng.sample(_PEOPLE, 2)
    thing, place = rng.choice(_THINGS), rng.choice(_PLACES)
    adjective, past, when = rng.choice(_ADJECTIVES), rng.choice(_PAST), rng.choice(_TIMES)
    forms = (
        f"The {person} {past} the {adjective} {thing} in the {place} {when}.",
        f"The {adjective} {person} {past} a {thing} for the {other}, {rng.choice(_REASONS)}.",
        f"There was a {adjective} {thing} near the {place}, and the {person} {past} it {when}.",
        f"A {person} who {past} the {thing} met a {adjective} {other} at the {place}.",
        f"Nobody in the {place} had seen the {adjective} {thing} that the {person} {past} {when}.",
    )
    return rng.choice(forms)


def document(rng: random.Random) -> str:
    """A short text of three to five sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(3, 5)))


def items(skill: str, count: int = ITEMS, seed: int = ITEM_SEED) -> list[dict[str, str]]:
    """Distinct items of one skill, the same for the same seed: `id`, `prompt`, `answer`."""
    rng = random.Random(f"{skill}-{seed}")  # noqa: S311 - reproducible items, no secret
    drawn: dict[str, str] = {}
    while len(drawn) < count:
        prompt, answer = SKILLS[skill](rng)
        drawn.setdefault(prompt, answer)
    return [{"id": f"{skill}-{i:03d}", "prompt": p, "answer": a} for i, (p, a) in enumerate(drawn.items())]


def held_out_text(count: int = 120, seed: int = ITEM_SEED) -> list[dict[str, str]]:
    """Documents for perplexity and for comparing next-token distributions."""
    rng = random.Random(f"text-{seed}")  # noqa: S311 - reproducible text, no secret
    return [{"text": document(rng)} for _ in range(count)]


def write(folder: Path = SKILLS_TASKS) -> list[Path]:
    """Write the items of every skill and the held-out text as JSONL; returns the files."""
    tables = {f"{skill}.jsonl": items(skill) for skill in SKILLS} | {"text.jsonl": held_out_text()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [folder / name for name in tables]


if __name__ == "__main__":
    for path in write():
        print(path)
