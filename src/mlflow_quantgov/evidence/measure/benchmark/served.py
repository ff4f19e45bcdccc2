"""A benchmark of two served models: what a client sees, network and queue included."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.artifact.runtimes.endpoint import EndpointAdapter
from mlflow_quantgov.artifact.runtimes.endpoint.description import Endpoint, read_endpoint
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.benchmark.process import sample_of
from mlflow_quantgov.evidence.measure.benchmark.rounds import Until, run_rounds
from mlflow_quantgov.evidence.measure.benchmark.run import Effort, demand_of, load_average, warnings_of
from mlflow_quantgov.evidence.measure.fingerprint import this_machine
from mlflow_quantgov.evidence.measure.progress import Progress, duration
from mlflow_quantgov.evidence.measure.provenance import provenance, side
from mlflow_quantgov.evidence.predicates.benchmark_v3 import Benchmark, Conditions, Sample, SideName
from mlflow_quantgov.evidence.targets import Target, TargetLoad


def run_served(
    parent: Path,
    quantized: Path,
    target: Target,
    *,
    parent_weights: str,
    quantized_weights: str,
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Time two endpoints at the target's loads: `batch` requests at once, their answers streamed.

    Which bytes and settings run there cannot be seen, so the evidence is labelled `imported`, and no heat is run. The
    hardware is this machine's where both addresses are loopback ones, and not known otherwise.

    Args:
        parent: Description of the endpoint that serves the parent.
        quantized: Of the one that serves the quantized version.
        target: Names the loads.
        parent_weights: Weights digest of the parent.
        quantized_weights: Weights digest of the quantized model.
        effort: Time, width, rounds.
        progress: Called with a message and a fraction from 0 to 1.

    Raises:
        UnreachableError: An endpoint does not answer.
        UsageError: Both are the same served model, or one does not count its tokens.
    """
    effort, report = effort or Effort(), progress or (lambda message, fraction: None)
    ends = {"parent": read_endpoint(parent, {}), "quantized": read_endpoint(quantized, {})}
    if _same(ends["parent"], ends["quantized"]):
        raise UsageError(
            f"Both descriptions name the model {ends['parent'].model or 'that is served'} at {ends['parent'].public_url}.",
            why="One model compared with itself shows nothing.",
            fix="describe two models, or two addresses",
        )
    away = next((one.public_url for one in ends.values() if not one.is_on_this_machine), None)
    machine = this_machine() if away is None else None
    conditions = Conditions(load_average=load_average())
    until = Until(effort.rounds, effort.width, 60 * effort.minutes, target.phase)
    report(f"at least {until.fewest} rounds of each load, at most about {duration(until.seconds)} for more", 0.0)
    with EndpointAdapter().open(parent) as left, EndpointAdapter().open(quantized) as right:
        served = {"parent": left, "quantized": right}

        def time_side(name: SideName, load: TargetLoad) -> Sample | None:
            return sample_of(served[name].time(**load.model_dump()))

        loads = run_rounds(time_side, target.loads, until, report)
        facts = left.facts(), right.facts()
    warnings = warnings_of(conditions, machine.cores, loads) if machine is not None else ()
    return Benchmark.measured(
        provenance=provenance(imported=True),
        target=target.name,
        target_digest=target.digest,
        demand=demand_of(target, effort),
        fingerprint=machine,
        hardware_unknown=f"what serves at {away} is not seen from here" if away is not None else None,
        parent=side(parent_weights, facts[0], parent),
        quantized=side(quantized_weights, facts[1], quantized),
        loads=tuple(loads),
        conditions=conditions,
        warnings=warnings,
    )


def _same(one: Endpoint, other: Endpoint) -> bool:
    return (one.public_url, one.model) == (other.public_url, other.model)
