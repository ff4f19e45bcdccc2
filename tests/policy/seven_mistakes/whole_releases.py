"""Whole releases through the gated store: real bytes that the gate inspects, and statements with all their records.

A release is good in everything unless something of it is replaced, so that only the one thing decides.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from calibration_files import assessed, task_folder
from releases import FAST, SLOW, digest, provenance, resources, side, timed, tried

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.quantizers.recipe import Recipe
from mlflow_quantgov.evidence.kernel_table import lookup
from mlflow_quantgov.evidence.measure.documents import read_documents
from mlflow_quantgov.evidence.measure.tasks import folder_digest
from mlflow_quantgov.evidence.predicates import (
    Answer,
    Archive,
    ArchivedFile,
    Benchmark,
    Calibration,
    Drill,
    Fingerprint,
    Kernels,
    Predicate,
    Side,
    TaskEval,
    TaskItem,
    TaskResult,
    Training,
)
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Demand
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.store import write_copy
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE, LineageRecord, SavedModel
from mlflow_quantgov.lineage import ModelFacts, facts_of
from mlflow_quantgov.policy.decision import Decision
from mlflow_quantgov.policy.facts import Facts

ARTIFACTS = Path(__file__).parents[2] / "data" / "artifacts"
CAPABILITIES = ("multi-step-reasoning", "instruction-following", "edge-cases")
MLMODEL = "flavors: {python_function: {loader_module: mlflow_quantgov.flavor, data: model}, quantgov: {}}\n"
CPU = Fingerprint(
    machine="x86_64", cpu_model="EPYC 9354", cpu_id="AuthenticAMD 25/17/1", cores=8, memory_bytes=32 * 10**9,
    cpu_flags=("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
)  # fmt: skip
GPU = CPU.model_copy(
    update={
        "accelerator": "NVIDIA A10G", "accelerators": 1, "accelerator_memory_bytes": 24 * 10**9,
        "compute_capability": "8.6", "driver": "570.1",
    }
)  # fmt: skip
Make = Callable[["Pair"], Predicate]
Change = Callable[["Pair"], dict[str, Any]]


def captured(template: str, machine: Fingerprint, **changes: Any) -> Target:
    """A shipped target with the fingerprint of a machine, as `quantgov targets capture` makes it."""
    base = find_target(template)
    hardware = base.hardware.model_copy(update={"fingerprint": machine})
    return base.model_copy(update={"name": "mine", "hardware": hardware} | changes)


@dataclass(frozen=True)
class Pair:
    """A version and its parent, as the gate reads their files; what statements are made from."""

    parent: ModelFacts
    quantized: ModelFacts
    target: Target
    kernel: str
    manifest: tuple[ArchivedFile, ...]
    """Files of the parent."""
    version: str
    """Of the runtime that measured."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    def side(self, of: ModelFacts, **changes: Any) -> Side:
        """One side as the target's runtime ran it."""
        settings = {"device": "cuda:0"} if self.target.hardware.device == "cuda" else {}
        values = {
            "behaviour": of.behaviour, "runtime": self.target.runtime, "version": self.version, "settings": settings
        }  # fmt: skip
        return side(of.weights, **(values | changes))

    @property
    def both(self) -> dict[str, Any]:
        """Who measured, and the two sides."""
        return {
            "provenance": provenance(measured_at=self.at),
            "parent": self.side(self.parent),
            "quantized": self.side(self.quantized),
        }

    @property
    def there(self) -> dict[str, Any]:
        """Who measured, for which target, and on which machine."""
        return {
            "provenance": provenance(measured_at=self.at),
            "target": self.target.name,
            "target_digest": self.target.digest,
            "fingerprint": self.target.hardware.fingerprint,
        }


def asked(
    capability: str, *, items: int = 200, lost: int = 0, failed: int = 20, output: bool = True, **changes: Any
) -> TaskResult:
    """A task of the task folder: the parent fails so many items, and the version loses so many of the others."""
    prompts = read_documents(task_folder() / f"{capability}.jsonl")
    from hashlib import sha256

    answered = []
    for number in range(items):
        before = float(number >= failed)
        after = float(number >= failed + lost)
        answered.append(
            TaskItem(
                id=str(number),
                prompt_sha256=sha256(
                    (prompts[number] if number < len(prompts) else f"{capability} {number}").encode()
                ).hexdigest(),
                parent=Answer(score=before, output="x" if output else None),
                quantized=Answer(score=after, output="y" if output else None),
            )
        )
    values: dict[str, Any] = {
        "task": f"our-{capability}",
        "task_digest": folder_digest(task_folder()),
        "capability": capability,
        "metric": "exact_match",
        "higher_is_better": True,
        "output_type": "generate_until",
        "items": tuple(answered),
    }
    return TaskResult(**(values | changes))


def evaluated(pair: Pair, *tasks: TaskResult) -> TaskEval:
    """An evaluation on all three capabilities, or on some tasks."""
    found = tasks or tuple(asked(name) for name in CAPABILITIES)
    return TaskEval.measured(**pair.both, settings={}, tasks=found)


def kernels(pair: Pair, **changes: Any) -> Kernels:
    """What the runtime took, as its probe says it; the row is the shipped table's."""
    seen = {
        "lookup": lookup(pair.quantized.quantization, pair.target),
        "probed": True,
        "side": pair.side(pair.quantized, kernel=pair.kernel),
        "dequantized": False,
    }
    return Kernels.measured(**(pair.there | seen | changes))


def benchmark(pair: Pair, **changes: Any) -> Benchmark:
    """Twice as fast in two thirds of the memory, at every load of the target."""
    loads = tuple(timed(**load.model_dump()) for load in pair.target.loads)
    gpu = {"device_bytes": 300_000} if pair.target.hardware.device == "cuda" else {}
    values: dict[str, Any] = (
        pair.both
        | pair.there
        | {
            "demand": Demand(must_improve=pair.target.must_improve, phase=pair.target.phase, width=0.1),
            "parent_tries": (tried(*[SLOW] * len(loads)),),
            "quantized_tries": (tried(*[FAST] * len(loads)),),
            "loads": loads,
            "parent_resources": resources(300_000).model_copy(update=gpu),
            "quantized_resources": resources(200_000).model_copy(update=gpu and {"device_bytes": 200_000}),
        }
    )
    return Benchmark.measured(**(values | changes))


def archive(pair: Pair, **changes: Any) -> Archive:
    """Every file of the parent."""
    values: dict[str, Any] = {
        "provenance": provenance(measured_at=pair.at), "store": "file:///archive", "manifest_digest": pair.parent.manifest,
        "files": pair.manifest, "stored_bytes": sum(one.size for one in pair.manifest),
    }  # fmt: skip
    return Archive.measured(**(values | changes))


def drill(pair: Pair, **changes: Any) -> Drill:
    """All came back, loaded, and gave the answer that the registry's own files give."""
    values: dict[str, Any] = {
        "provenance": provenance(measured_at=pair.at), "store": "file:///archive", "manifest_digest": pair.parent.manifest,
        "verified_files": len(pair.manifest), "loaded": True, "runtime": pair.target.runtime, "answered": True,
        "answer_sha256": "1" * 64, "prompt_sha256": "2" * 64, "reproduced": "original",
    }  # fmt: skip
    return Drill.measured(**(values | changes))


def representative(pair: Pair) -> Calibration:
    """Calibrated on other messages of the same customers."""
    return assessed()


@dataclass(frozen=True)
class Trained:
    """What a version below four bit needs beside everything else."""

    checkpoint: Callable[[Path], Path]
    """Makes the trained full-precision weights."""
    wider: Callable[[Path], Path] | None
    """Makes a version of the same parent at four bit or more, which is evaluated first."""
    stated: bool = True
    """Whether the training is recorded."""


@dataclass(frozen=True)
class Release:
    """One release, and what is stated of it."""

    name: str
    artifact: str | Callable[[Path], Path]
    """One of the small artifacts, or what makes one in a folder."""
    target: Target
    kernel: str
    """What the probe saw."""
    version: str = "1"
    """Of the runtime."""
    parent: str | Callable[[Path], Path] = "parent-bf16"
    calibration: Make | None = None
    """None where the method needs no data."""
    statements: tuple[tuple[str, Make], ...] = (
        ("task-eval", evaluated), ("kernels", kernels), ("benchmark", benchmark), ("archive", archive), ("drill", drill)
    )  # fmt: skip
    home: str = "chat"
    """Registered model that holds the parent."""
    recipe: Recipe | None = None
    trained: Trained | None = None
    declared: bool = True
    """Whether the target was named when the version was logged."""
    policy: str = ""
    """Text of a policy; empty: the default one as it is shipped."""

    def but(self, kind: str, make: Make | None = None, **changes: Any) -> Release:
        """The same release with one statement made otherwise, or with other records; `make` None and no records: without it."""
        usual = dict(self.made)
        if make is None and changes:
            made = usual[kind]
            make = lambda pair: made(pair, **changes)  # noqa: E731
        if make is None:
            del usual[kind]
        else:
            usual[kind] = make
        return replace(self, statements=tuple(usual.items()), calibration=None)

    @property
    def made(self) -> tuple[tuple[str, Make], ...]:
        """Every statement by its kind."""
        return self.statements + ((("calibration", self.calibration),) if self.calibration else ())


class Shelf:
    """A gated store in which releases are registered and judged."""

    def __init__(self, store: Any, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._read: dict[tuple[str, str], tuple[ModelFacts, tuple[ArchivedFile, ...]]] = {}

    def put(self, release: Release) -> str:
        """Register a release with everything that is stated of it; gives its version of `chat`."""
        made = self.folder / "made"
        made.mkdir()
        origin = self._register(release.home, self._log(self._source(release.parent, made), "parent"))
        parent = (release.home, origin)
        extra: tuple[Make, ...] = ()
        if release.trained:
            if release.trained.wider is not None:
                root = self._log(release.trained.wider(made), "quantized", parent, release.target)
                pair = self._pair(release, root)
                self._state(root, pair, evaluated(replace(pair, at=pair.at - timedelta(hours=1))))
                self.facts(self._register("chat", root))  # What lies beside a version is taken in when it is looked at.
            root = self._log(release.trained.checkpoint(made), "parent")
            self._register("trained", root)
            checkpoint = facts_of(SavedModel(root).artifact)
            extra = (lambda pair: _training(pair, checkpoint),) if release.trained.stated else ()
        target = release.target if release.declared else None
        root = self._log(self._source(release.artifact, made), "quantized", parent, target, release.recipe)
        pair = self._pair(release, root)
        for make in (*extra, *(one for _, one in release.made)):
            self._state(root, pair, make(pair))
        return self._register("chat", root)

    def put_unread(self, release: Release, artifact: Path) -> str:
        """Register files about which nothing can be stated, since nobody can tell what they are."""
        made = self.folder / "made"
        made.mkdir()
        parent = (release.home, self._register(release.home, self._log(self._source(release.parent, made), "parent")))
        root = self._log(artifact, "quantized", parent, release.target)
        return str(self.store.create_model_version("chat", str(root)).version)

    def facts(self, version: str) -> Facts:
        """What the gate knows."""
        return self.store.quantgov_facts("chat", version)  # type: ignore[no-any-return]

    def decide(self, version: str) -> Decision:
        """What it would say."""
        return self.store.quantgov_check("chat", version, "@champion")  # type: ignore[no-any-return]

    def promote(self, version: str) -> None:
        """Ask through the door."""
        self.store.set_registered_model_alias("chat", "champion", version)

    def _pair(self, release: Release, root: Path) -> Pair:
        """What statements about logged files are made from."""
        parent, files = self._read[release.home, "1"]
        mine = facts_of(SavedModel(root).artifact)
        return Pair(parent, mine, release.target, release.kernel, files, release.version)

    def _source(self, artifact: str | Callable[[Path], Path], made: Path) -> Path:
        return ARTIFACTS / artifact if isinstance(artifact, str) else artifact(made)

    def _state(self, root: Path, pair: Pair, content: Predicate) -> None:
        """Lay a statement beside the model, where the gate finds it."""
        about = pair.parent if isinstance(content, Archive | Drill) else pair.quantized
        write_copy(root, Statement.about(about.weights, content, name="chat"))

    def _log(
        self,
        source: Path,
        role: str,
        parent: tuple[str, str] | None = None,
        target: Target | None = None,
        recipe: Recipe | None = None,
    ) -> Path:
        """Write files as this flavor does."""
        root = self.folder / f"logged-{len(list(self.folder.glob('logged-*')))}"
        model = root / "model"
        if source.is_dir():
            shutil.copytree(source, model)
        else:
            model.mkdir(parents=True)
            shutil.copy(source, model)
        (root / MANIFEST_FILE).parent.mkdir()
        (root / MANIFEST_FILE).write_text(build_manifest(model).to_json())
        (root / "MLmodel").write_text(MLMODEL)
        claim = None
        if parent is not None:
            held = self._read[parent][0]
            claim = {"uri": "models:/{}/{}".format(*parent), "weights": held.weights, "manifest": held.manifest}
        (root / LINEAGE_FILE).write_text(LineageRecord(role, claim, target, recipe).to_json())
        return root

    def _register(self, name: str, root: Path) -> str:
        if name not in [one.name for one in self.store.search_registered_models()]:
            self.store.create_registered_model(name)
        version = str(self.store.create_model_version(name, str(root)).version)
        manifest = SavedModel(root).manifest()
        files = tuple(ArchivedFile(path=one.path, size=one.size, sha256=one.sha256) for one in manifest.files)
        self._read[name, version] = (facts_of(SavedModel(root).artifact), files)
        return version


def _training(pair: Pair, checkpoint: ModelFacts) -> Training:
    return Training.measured(
        provenance=provenance(measured_at=pair.at), run="r1", checkpoint_uri="models:/trained/1", steps=4000,
        checkpoint=checkpoint.weights, data_digest=digest("5"), code_version="v1",
    )  # fmt: skip
