"""A version for which everything that the default policy asks for was measured, and well."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest
from mlflow_quantgov.artifact.quantization import LayerQuantization, Quantization, Structure
from mlflow_quantgov.evidence.likeness import ACTIVATIONS, CLASSIFIER, MEANING, PHRASES, STANDARDS, SURFACE
from mlflow_quantgov.evidence.predicates import (
    Answer,
    Archive,
    ArchivedFile,
    Benchmark,
    BenchmarkV1,
    Calibration,
    DataRecord,
    Drill,
    Fidelity,
    Fingerprint,
    Kernels,
    Likeness,
    Load,
    Predicate,
    Provenance,
    Round,
    Side,
    TaskEval,
    TaskItem,
    TaskResult,
)
from mlflow_quantgov.evidence.predicates.benchmark import Speed
from mlflow_quantgov.evidence.predicates.benchmark_v3 import (
    Demand,
    NotLoaded,
    Resources,
    Sample,
    TimedLoad,
    TimedRound,
    Try,
)
from mlflow_quantgov.evidence.predicates.calibration import LayerRecord, Observation
from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target, find_target
from mlflow_quantgov.lineage import Lineage, ModelFacts
from mlflow_quantgov.policy.facts import Evidence, Facts

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CAPABILITIES = ("multi-step-reasoning", "instruction-following", "edge-cases")


def digest(letter: str) -> str:
    """A made-up digest."""
    return f"sha256:{letter * 64}"


MODEL, PARENT = digest("a"), digest("b")
FILE = FileEntry("model.safetensors", 1, "1" * 64)
MANIFEST = Manifest((FILE,), PARENT).digest
"""Of the parent's only file."""
MACHINE = Fingerprint(machine="x86_64", cpu_model="CPU", cores=2, memory_bytes=8 * 10**9)


def provenance(**changes: Any) -> Provenance:
    """Measured an hour ago."""
    return Provenance(**({"measured_at": NOW - timedelta(hours=1), "tool_version": "0"} | changes))


def side(weights: str, **changes: Any) -> Side:
    """One side as llama.cpp ran it."""
    values = {
        "weights": weights,
        "behaviour": digest("e" if weights == MODEL else "f"),
        "runtime": "llama.cpp",
        "version": "1",
        "dequantized": False,
    }
    return Side(**(values | changes))


def target() -> Target:
    """This made-up machine with llama.cpp."""
    base = find_target("cpu-llamacpp")
    return base.model_copy(
        update={"name": "mine", "hardware": base.hardware.model_copy(update={"fingerprint": MACHINE})}
    )


def items(scores: list[tuple[float, float]], prefix: str = "p") -> tuple[TaskItem, ...]:
    """Items that each ask something of their own."""
    return tuple(
        TaskItem(
            id=str(number),
            prompt_sha256=hashlib.sha256(f"{prefix}{number}".encode()).hexdigest(),
            parent=Answer(score=parent, output="x"),
            quantized=Answer(score=quantized, output="y"),
        )
        for number, (parent, quantized) in enumerate(scores)
    )


def task(capability: str, answered: tuple[TaskItem, ...] | None = None, **changes: Any) -> TaskResult:
    """A task on which nothing was lost, unless other items are given."""
    values: dict[str, Any] = {
        "task": f"task-{capability}",
        "task_digest": digest("c"),
        "capability": capability,
        "metric": "exact_match",
        "higher_is_better": True,
        "output_type": "generate_until",
        "items": answered or items([(1, 1)] * 180 + [(0, 0)] * 20, capability),
    }
    return TaskResult(**(values | changes))


def task_eval(tasks: tuple[TaskResult, ...] | None = None, **changes: Any) -> TaskEval:
    """All three capabilities."""
    values: dict[str, Any] = {
        "provenance": provenance(),
        "parent": side(PARENT),
        "quantized": side(MODEL),
        "settings": {},
        "tasks": tasks or tuple(task(name) for name in CAPABILITIES),
    }
    return TaskEval.measured(**(values | changes))


def fidelity(tokens: int, identical: int) -> Fidelity:
    """One document, on which so many log-probabilities equal the parent's bit by bit."""
    document = DocumentRecord(
        id=digest("9"), tokens=tokens, parent_nll=1, quantized_nll=1, kl=0, kl_max=0, same_top=tokens, identical=identical,
        kl_counts=((0, tokens),),
    )  # fmt: skip
    return Fidelity.measured(
        provenance=provenance(), parent=side(PARENT), quantized=side(MODEL), data=digest("9"), settings={},
        documents=(document,),
    )  # fmt: skip


FAST, SLOW = Sample(prefill=200.0, decode=20.0), Sample(prefill=100.0, decode=10.0)


def timed(parent: Sample | None = SLOW, quantized: Sample = FAST, rounds: int = 9, **changes: Any) -> TimedLoad:
    """The target's load, the same in every round."""
    values = target().loads[0].model_dump() | {"ended": "narrow"} | changes
    return TimedLoad(rounds=(TimedRound(first="parent", parent=parent, quantized=quantized),) * rounds, **values)


def tried(*speeds: Speed, chosen: bool = True) -> Try:
    """A configuration that ran in the heat."""
    return Try(configuration="as stored, 2 threads", speeds=speeds, chosen=chosen)


def resources(peak: int | None) -> Resources:
    """A process with a tenth of a megabyte of libraries."""
    return Resources(baseline_bytes=100_000, peak_bytes=peak, weight_bytes=peak)


def benchmark(**changes: Any) -> Benchmark:
    """Twice as fast in half the memory."""
    values: dict[str, Any] = {
        "provenance": provenance(),
        "target": "mine",
        "target_digest": target().digest,
        "demand": Demand(must_improve="both", phase="decode", width=0.1),
        "fingerprint": MACHINE,
        "parent": side(PARENT),
        "quantized": side(MODEL),
        "parent_tries": (tried(SLOW),),
        "quantized_tries": (tried(FAST),),
        "loads": (timed(),),
        "parent_resources": resources(300_000),
        "quantized_resources": resources(200_000),
    }
    return Benchmark.measured(**(values | changes))


def benchmark_alone(**changes: Any) -> Benchmark:
    """Of a version whose parent was killed for memory while it was loaded."""
    lost = NotLoaded(cause="memory", error="its process was ended by SIGKILL", free_memory_bytes=2 * 10**9)
    values: dict[str, Any] = {"parent_not_loaded": lost, "parent_tries": (), "loads": (timed(None),)}
    return benchmark(**({"parent_resources": Resources()} | values | changes))


def benchmark_v1(**changes: Any) -> BenchmarkV1:
    """The same, as version 1 recorded it."""
    fast, slow = Speed(prefill=200.0, decode=20.0), Speed(prefill=100.0, decode=10.0)
    load = target().loads[0].model_dump()
    values: dict[str, Any] = {
        "provenance": provenance(),
        "target": "mine",
        "target_digest": target().digest,
        "fingerprint": MACHINE,
        "parent": side(PARENT),
        "quantized": side(MODEL),
        "loads": (Load(rounds=(Round(parent=slow, quantized=fast),) * 9, **load),),
        "parent_resident_bytes": 100,
        "quantized_resident_bytes": 50,
    }
    return BenchmarkV1.measured(**(values | changes))


def kernels(**changes: Any) -> Kernels:
    """Seen in llama.cpp."""
    values: dict[str, Any] = {
        "provenance": provenance(),
        "target": "mine",
        "target_digest": target().digest,
        "lookup": {"runtime": "llama.cpp", "support": "optimized", "row": "claimed", "source": "claimed"},
        "probed": True,
        "side": side(MODEL, kernel="CPU_REPACK"),
        "dequantized": False,
        "fingerprint": MACHINE,
    }
    return Kernels.measured(**(values | changes))


def archive(**changes: Any) -> Archive:
    """The parent, whole."""
    values: dict[str, Any] = {
        "provenance": provenance(),
        "store": "file:///archive",
        "manifest_digest": MANIFEST,
        "files": (ArchivedFile(**asdict(FILE)),),
        "stored_bytes": 1,
    }
    return Archive.measured(**(values | changes))


def drill(**changes: Any) -> Drill:
    """It came back and answered."""
    values: dict[str, Any] = {
        "provenance": provenance(),
        "store": "file:///archive",
        "manifest_digest": MANIFEST,
        "verified_files": 1,
        "loaded": True,
        "answered": True,
    }
    return Drill.measured(**(values | changes))


def calibration(**changes: Any) -> Calibration:
    """Data like production's."""
    even, flat = tuple((n + 0.5) / 300 for n in range(300)), (0.01, -0.01) * 150
    scores = {SURFACE: flat, MEANING: flat, CLASSIFIER: even, PHRASES: even}
    values: dict[str, Any] = {
        "provenance": provenance(),
        "data": DataRecord(digest=digest("3"), documents=300, characters=1000, unrepresented=0.0),
        "production": DataRecord(digest=digest("4"), documents=300, characters=1000),
        "leaked_documents": 0,
        "searched_tasks": digest("c"),
        "shared_with_production": 0,
        "likeness": tuple(
            Likeness(
                name=name,
                calibration=side,
                production=side,
                threshold=STANDARDS[name].threshold,
                concentration=(0.05, 0.05),
            )
            for name, side in scores.items()
        ),
    }
    return Calibration.measured(**(values | changes))


def watched(apart: float = 0.0, parent: str = "b") -> Calibration:
    """The same with what one layer of the parent sees, so far apart."""
    scores = (
        tuple(apart / 2 + one for one in (0.01, -0.01) * 150),
        tuple(-apart / 2 + one for one in (0.01, -0.01) * 150),
    )
    standard = STANDARDS[ACTIVATIONS]
    test = Likeness(
        name=ACTIVATIONS,
        calibration=scores[0],
        production=scores[1],
        threshold=standard.threshold,
        concentration=(0.05, 0.05),
    )
    seen = Observation(
        parent=digest(parent),
        library="transformers 5",
        documents=(300, 300),
        tokens=(9, 9),
        tokens_of_errors=(9, 9),
        unwatched=0,
    )
    layer = LayerRecord(name="l", distance=apart, calibration_error=0.01, production_error=0.02)
    return calibration(likeness=(*calibration().likeness, test), layers=(layer,), observation=seen)


def evidence(content: Predicate, minutes: int = 0, subject: str | None = None) -> Evidence:
    """As the gate received it, so many minutes before now."""
    about = subject or (PARENT if isinstance(content, Archive | Drill) else MODEL)
    statement = Statement.about(about, content, name="m")
    return Evidence(statement, content, statement.digest, "somebody", NOW - timedelta(minutes=minutes))


def quantization(**changes: Any) -> Quantization:
    """A 4-bit GGUF that needed calibration data."""
    values: dict[str, Any] = {
        "format": "gguf",
        "method": "IQ4_NL",
        "bits": 4.0,
        "bits_per_weight": 4.5,
        "group_size": 32,
        "granularity": "group",
        "symmetric": True,
        "activation_bits": None,
        "kv_cache_bits": None,
        "desc_act": None,
        "dtype": "float32",
        "quantized_parameters": 100,
        "total_parameters": 100,
        "size_bytes": 100,
        "producer": None,
        "calibration_required": True,
        "layers": (LayerQuantization("l", 4.0, 32, (10, 10), "IQ4_NL"),),
    }
    return Quantization(**(values | changes))


def model_facts(weights: str, **changes: Any) -> ModelFacts:
    """Files of one of the two models."""
    if weights == PARENT:
        plain = {
            "format": "full-precision",
            "method": None,
            "bits": None,
            "quantized_parameters": 0,
            "layers": (),
            "size_bytes": 10**9,
        }
        return ModelFacts(PARENT, MANIFEST, digest("f"), quantization(**(plain | changes)), Structure("llama"))
    return ModelFacts(MODEL, digest("1"), digest("e"), quantization(**changes), Structure("llama"))


def contents() -> list[Predicate]:
    """Everything that is asked for."""
    return [task_eval(), benchmark(), kernels(), archive(), drill(), calibration()]


def facts_of(measured: list[Predicate] | None = None, **changes: Any) -> Facts:
    """A version that passes, with something else in place of what it has."""
    found = Facts(
        name="chat",
        version="2",
        role="quantized",
        now=NOW,
        model=model_facts(MODEL),
        recorded_manifest=digest("1"),
        files_at="mlflow-artifacts:/0/models/m-1/artifacts",
        lineage=Lineage("structure", "models:/chat/1", model_facts(PARENT), parent_version="1"),
        target=target(),
        evidence=tuple(evidence(one) for one in (contents() if measured is None else measured)),
    )
    return replace(found, **changes)
