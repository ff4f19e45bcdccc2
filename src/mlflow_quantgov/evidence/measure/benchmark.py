"""Speed and memory of parent and quantized version, interleaved in one run on this machine."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.artifact.runtimes.registry import find_runtime
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.measure.provenance import RUNTIME_LIBRARIES, provenance, side
from mlflow_quantgov.evidence.predicates.benchmark import Benchmark, Load, Round, Speed
from mlflow_quantgov.evidence.targets import Target, TargetLoad

MIN_ROUNDS = 3


def run(
    parent: Path,
    quantized: Path,
    target: Target,
    *,
    parent_weights: str,
    quantized_weights: str,
    rounds: int = 5,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Time both sides at the target's loads.

    Args:
        parent: Full-precision folder, in its fastest lossless configuration here.
        quantized: Quantized folder or file.
        target: Names runtime and loads.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        rounds: Interleaved repetitions, at least 3.
        cache: Folder for converted twins.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UsageError: Fewer than 3 rounds.
        MissingExtraError: The runtime is not installed.
        ArtifactError: A side does not load in it.
    """
    report = progress or (lambda message, fraction: None)
    if rounds < MIN_ROUNDS:
        raise UsageError(
            f"{rounds} rounds time nothing that could be compared.",
            why=f"At least {MIN_ROUNDS} interleaved rounds are needed, and 5 for a bound of 95 %.",
            fix="rounds=9",
        )
    adapter = find_runtime(target.runtime)
    with adapter.open(parent, cache=cache) as left, adapter.open(quantized, cache=cache) as right:
        loads = []
        for index, load in enumerate(target.loads):
            report(f"load {index + 1} of {len(target.loads)}", index / len(target.loads))
            loads.append(_time_load(left, right, load, rounds))
        left_facts, right_facts = left.facts(), right.facts()
    report("done", 1.0)
    return Benchmark.measured(
        provenance=provenance(*RUNTIME_LIBRARIES, imported=not (left_facts.saw_bytes and right_facts.saw_bytes)),
        target=target.name,
        target_digest=target.digest,
        fingerprint=this_machine(),
        parent=side(parent_weights, left_facts, parent),
        quantized=side(quantized_weights, right_facts, quantized),
        loads=tuple(loads),
        parent_resident_bytes=left_facts.resident_bytes,
        quantized_resident_bytes=right_facts.resident_bytes,
    )


def _time_load(parent: Runtime, quantized: Runtime, load: TargetLoad, rounds: int) -> Load:
    for runtime in (parent, quantized):
        _speed(runtime, load)  # warm-up: pages, caches and repacked weights are in place afterwards
    found = []
    for number in range(rounds):
        # The order alternates, so that a machine that slows down does not favour one side.
        if number % 2:
            second, first = _speed(quantized, load), _speed(parent, load)
        else:
            first, second = _speed(parent, load), _speed(quantized, load)
        found.append(Round(parent=first, quantized=second))
    return Load(
        batch=load.batch, prompt_tokens=load.prompt_tokens, output_tokens=load.output_tokens, rounds=tuple(found)
    )


def _speed(runtime: Runtime, load: TargetLoad) -> Speed:
    timing = runtime.time(batch=load.batch, prompt_tokens=load.prompt_tokens, output_tokens=load.output_tokens)
    return Speed(prefill=timing.prefill_tokens_per_second, decode=timing.decode_tokens_per_second)
