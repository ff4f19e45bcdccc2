"""A gated store with versions below four bit: real quantized bytes, and what is stated of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.tensors import read_safetensors
from mlflow_quantgov.evidence.predicates import TaskEval, Training
from mlflow_quantgov.evidence.signing import Attached, Signer, TrustedKey, sign
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.lineage import ModelFacts, facts_of
from mlflow_quantgov.policy.decision import CheckResult

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))
import descent_parents as parents
import descent_quantizers as make
from releases import digest, items, provenance, side, task, task_eval

PARENT = Path(__file__).parents[1] / "data" / "artifacts" / "parent-bf16"
POLICY = """
schema: quantgov/policy/v1
name: narrow
gates:
  narrow:
    checks: [lineage, bit-width]
    lineage_level: LEVEL
    capabilities:
      edge-cases: {margin: 0.2, confidence: 0.95, min_items: 149}
    budgets: BUDGETS
    signed: SIGNED
rules:
  - models: "*"
    destinations: {"@champion": narrow}
"""


def written(folder: Path, weights: make.Weights) -> Path:
    """A full-precision model of the parent's architecture."""
    _, config = make.load(PARENT)
    return make.save(folder, weights, config | {"dtype": "float32"})


def rounded(folder: Path, weights: make.Weights, bits: int, **config: Any) -> Path:
    """GPTQ's layout, rounded to the nearest in groups of 32."""
    _, original = make.load(PARENT)
    return make.write_gptq(folder, weights, original | config, bits, 32)


def mixed(folder: Path, weights: make.Weights, narrow: str) -> Path:
    """4 bit, but for one projection at 2 bit."""
    made, other = rounded(folder, weights, 4), rounded(folder.with_name(f"{folder.name}-2"), weights, 2)
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"]["dynamic"] = {f".*{narrow}.*": {"bits": 2}}
    tensors = {name: one for name, one in tensors_of(made) if narrow not in name}
    return make.save(folder, tensors | {name: one for name, one in tensors_of(other) if narrow in name}, config)


def tensors_of(folder: Path) -> list[tuple[str, make.Array]]:
    """As they are stored."""
    return [(name, np.array(one)) for name, one in read_safetensors(folder / "model.safetensors")]


@dataclass
class Registry:
    """A gated store, and what was registered there."""

    store: Any
    logged: Callable[..., str]
    folder: Path
    people: dict[str, Signer] = field(default_factory=dict)
    signer: str = ""
    """Who signs what is stated from now on; nobody."""
    clock: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=5))
    read: dict[tuple[str, str], ModelFacts] = field(default_factory=dict)
    sent: list[Attached] = field(default_factory=list)

    def register(self, name: str, artifact: Path, parent: str | None = None) -> str:
        """Log a folder as this flavor does; the parent is a version of `parents`."""
        root = self.folder / f"logged-{name}-{artifact.name}"
        place = self.folder / f"logged-parents-{parent}" if parent else None
        source = self.logged(root, str(artifact), place)
        if name not in [one.name for one in self.store.search_registered_models()]:
            self.store.create_registered_model(name)
        version = str(self.store.create_model_version(name, source).version)
        self.read[name, version] = facts_of(root / "model")
        return version

    def later(self) -> datetime:
        """A minute later than the last time."""
        self.clock += timedelta(minutes=1)
        return self.clock

    def weights(self, name: str, version: str) -> ModelFacts:
        """Facts of the files of a version."""
        return self.read[name, version]

    def evaluate(
        self,
        version: str,
        lost: int = 0,
        at: datetime | None = None,
        parent: str = "1",
        asked: int = 200,
        **changes: Any,
    ) -> TaskEval:
        """Attach an evaluation of a version of `chat` on which so many of the items were lost."""
        mine, theirs = self.weights("chat", version), self.weights("parents", parent)
        content = task_eval(
            (task("edge-cases", items([(1, 1)] * (asked - 1 - lost) + [(1, 0)] * lost + [(0, 1)])),),
            provenance=provenance(measured_at=at or self.later()),
            parent=side(theirs.weights, behaviour=theirs.behaviour),
            quantized=side(mine.weights, behaviour=mine.behaviour),
            **changes,
        )
        self.take_in(version, content)
        return content

    def train(self, version: str, checkpoint: str = "models:/trained/1", weights: str | None = None) -> None:
        """Attach a training statement."""
        name, number = checkpoint.removeprefix("models:/").split("/")
        content = Training.measured(
            provenance=provenance(measured_at=self.later()), run="r1", checkpoint_uri=checkpoint, steps=1000,
            checkpoint=weights or self.weights(name, number).weights, data_digest=digest("5"), code_version="v1",
        )  # fmt: skip
        self.take_in(version, content)

    def take_in(self, version: str, content: Any, subject: str | None = None) -> None:
        about = subject or self.weights("chat", version).weights
        self.send(version, Statement.about(about, content, name="chat"))

    def send(self, version: str, statement: Statement) -> None:
        """Attach a statement, signed by whoever signs now."""
        self.sent.append(Attached(statement, sign(statement, self.people[self.signer]) if self.signer else None))
        self.store.quantgov_take_in("chat", version, self.sent[-1].to_bytes())

    def check(self, version: str = "2") -> CheckResult:
        """What is said of the width."""
        decision = self.store.quantgov_check("chat", version, "@champion")
        return next(one for one in decision.checks if one.check == "bit-width")

    def promote(self, version: str = "2") -> None:
        self.store.set_registered_model_alias("chat", "champion", version)


def trusted(people: dict[str, Signer], name: str, *roles: Any, **changes: Any) -> TrustedKey:
    """An entry of the keys file."""
    public = people[name].public
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return TrustedKey(id=public.id, public_key=public.text, name=name, roles=roles, not_before=start, **changes)


def original() -> make.Weights:
    return make.load(PARENT)[0]


def trained() -> make.Weights:
    """Every matrix moved by a twentieth of its norm, norms too."""
    moved = parents.changed(original(), 0.05)
    return {name: one * np.float32(1.01) if name.endswith("norm.weight") else one for name, one in moved.items()}


def wide(registry: Registry, **changes: Any) -> str:
    """Log and evaluate the original at four bit."""
    version = registry.register("chat", rounded(registry.folder / "w4", original(), 4), "1")
    registry.evaluate(version, **changes)
    return version


def narrow(registry: Registry, bits: int = 3, weights: make.Weights | None = None) -> str:
    """Log the rounding of the checkpoint, or of other weights."""
    made = rounded(registry.folder / f"w{bits}", trained() if weights is None else weights, bits)
    return registry.register("chat", made, "1")


def release(registry: Registry, bits: int = 3, weights: make.Weights | None = None) -> str:
    """Everything in its order."""
    wide(registry)
    version = narrow(registry, bits, weights)
    registry.train(version)
    registry.evaluate(version)
    return version


def refused(registry: Registry, words: str, outcome: str = "fail", version: str = "2") -> CheckResult:
    """The width is refused, for this reason."""
    check = registry.check(version)
    assert (check.outcome, words in check.reason) == (outcome, True), check.reason
    return check
