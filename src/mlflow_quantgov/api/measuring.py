"""Measure a registered version on this machine, and attach what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.calibration_data import CalibrationData
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.evidence.targets import Target
from mlflow_quantgov.flavor.download import cache_folder, local_model
from mlflow_quantgov.versions import (
    attach_content,
    pair_of,
    parent_of,
    runtime_of,
    signer_of,
    target_for,
)


def measure_fidelity(
    uri: str,
    text: str | Path | None = None,
    *,
    runtime: str | None = None,
    parent_logits: str | Path | None = None,
    quantized_logits: str | Path | None = None,
    served: tuple[str | Path, str | Path] | None = None,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Measure KL divergence, same-top-token rate and perplexity against the parent, and attach the result.

    A run that was killed goes on after the last document that it had scored.

    Args:
        uri: The quantized version.
        text: Text or JSONL file with production-like documents; not needed with `parent_logits`, whose file holds tokens.
        runtime: Runtime for both sides; None for the target's.
        parent_logits: File that `llama-perplexity --save-all-logits` wrote for the parent, instead of running it here.
        quantized_logits: The same for the quantized version, instead of running it here.
        served: Descriptions of the endpoints that serve the parent and the quantized version, instead of running the
            files here: they must echo a prompt with its log-probabilities.
        progress: Called with a message and a fraction from 0 to 1; the first messages say what it will cost.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Whatever did not run here is labelled `imported`.

    Raises:
        UsageError: No text, or more than one source of it; a file is missing, empty or damaged.
        UnreachableError: An endpoint does not answer.
        EvidenceError: The sides cannot be compared, or one gives NaN.
    """
    signer = signer_of(key)
    from mlflow_quantgov.evidence.measure import fidelity

    if (text is None) == (parent_logits is None):
        raise UsageError(
            "Fidelity is measured either on a text or on the tokens of a file of saved logits.",
            why="Without one there is nothing to score; with both it is not clear which counts.",
            fix=f"quantgov fidelity {uri} --text FILE",
        )
    if (quantized_logits and not parent_logits) or (served and parent_logits):
        raise UsageError(
            "Saved logits of the quantized version stand beside those of the parent, and beside no endpoint.",
            why="Both sides must have seen the same tokens.",
            fix=f"quantgov fidelity {uri} --parent-logits FILE --quantized-logits FILE",
        )
    pair = pair_of(uri)
    weights: Any = {"parent_weights": pair.parent_weights, "quantized_weights": pair.quantized_weights}
    if parent_logits is not None:
        found = fidelity.measure_saved(
            Path(parent_logits),
            pair.quantized.artifact,
            quantized_logits=Path(quantized_logits) if quantized_logits is not None else None,
            runtime=runtime or runtime_of(pair),
            cache=cache_folder(),
            progress=progress,
            **weights,
        )
    elif served is not None:
        found = fidelity.measure_served(
            Path(served[0]), Path(served[1]), text=Path(str(text)), progress=progress, **weights
        )
    else:
        found = fidelity.measure(
            pair.parent.artifact,
            pair.quantized.artifact,
            text=Path(str(text)),
            runtime=runtime or runtime_of(pair),
            cache=cache_folder(),
            progress=progress,
            **weights,
        )
    return attach_content(pair.quantized, pair.quantized_weights, found, signer)


def assess_calibration(
    uri: str,
    data: str | Path | CalibrationData,
    production: str | Path | None = None,
    *,
    source: str | None = None,
    license: str | None = None,
    tasks: str | Path | Sequence[str] | None = None,
    activations: bool = True,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Record which data calibrated a version and how like production it is, and attach the result.

    Digests, counts and shares are recorded; no text leaves this machine. Where the parent runs here, it is run over both
    sides, at most 200 documents and 256 tokens each: a run that was killed goes on where it stopped.

    Args:
        uri: The quantized version.
        data: Text or JSONL file with what the quantizer saw, or a `Calibration` that says the rest too.
        production: A sample of production traffic in the same form.
        source: Where the data came from, in words.
        license: Its licence.
        tasks: Folder of lm-eval tasks, or a list of names of tasks that lm-eval ships, whose items must not be among the
            data; without it, nobody looks for them, and the policy lets no such calibration pass. What was evaluated has to
            be searched for; where that lies in several folders, once for each.
        activations: Whether to compare what the parent's layers see, where the parent runs here.
        progress: Called with a message and a fraction from 0 to 1; the first messages say what it will cost.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        UsageError: A file does not exist or holds no documents.
        EvidenceError: A side has no document of two tokens, or a layer of the parent gives NaN.
    """
    signer = signer_of(key)
    given = data if isinstance(data, CalibrationData) else CalibrationData(data)
    said = CalibrationData(
        given.data,
        given.production or production,
        given.source or source,
        given.license or license,
        given.tasks or tasks,
    )
    model = local_model(uri)
    facts = model.facts()
    parent = parent_of(model) if activations and said.production is not None else None
    layers = None
    if parent is not None:
        from mlflow_quantgov.evidence.measure.calibration.activations import ParentLayers

        layers = ParentLayers(
            parent.artifact, parent.manifest().weights_digest, model.artifact, cache_folder(), progress=progress
        )
    found = said.assess(facts.quantization.calibration_data, model.artifact, layers)
    return attach_content(model, facts.weights, found, signer)


def confirm_kernels(
    uri: str,
    target: str | Path | Target | None = None,
    *,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Look up which kernel serves a version on its target, probe the runtime here, and attach the result, signed by `key`."""
    signer = signer_of(key)
    from mlflow_quantgov.evidence.measure import kernels

    model = local_model(uri)
    facts = model.facts()
    found = kernels.confirm(
        model.artifact,
        facts.quantization,
        target_for(model, target),
        weights=facts.weights,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(model, facts.weights, found, signer)


def benchmark(
    uri: str,
    target: str | Path | Target | None = None,
    *,
    minutes: float = 10.0,
    width: float = 0.1,
    rounds: int | None = None,
    served: tuple[str | Path, str | Path] | None = None,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Time a version against its parent on this machine at the target's loads, and attach the result.

    Each side first runs a short heat, and the fastest of its lossless configurations is taken. Then both are timed in
    turn, until the interval of the ratio of their speeds is narrow or the time is up. The bounds hold whenever it ends.

    Args:
        uri: The quantized version.
        target: A target, its name or its path; None for the one that the version was logged for.
        minutes: For the rounds; the seven that give a bound are run however long they take.
        width: Relative width of the interval at which rounds end: 0.1 is 0.95 to 1.05 of the ratio.
        rounds: Exactly so many rounds instead, at least seven.
        served: Descriptions of the endpoints that serve the parent and the quantized version, instead of running the
            files here: the evidence is then labelled `imported`, and counts only from the machine that serves.
        progress: Called with a message and a fraction from 0 to 1; the cost is said after the heats.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        ArtifactError: The quantized version does not load here; a parent that does not is recorded as such.
        UnreachableError: An endpoint does not answer.
        UsageError: A number is out of range, or a load does not fit into the models' context.
    """
    signer = signer_of(key)
    from mlflow_quantgov.evidence.measure import benchmark as measure

    effort = measure.Effort(minutes=minutes, width=width, rounds=rounds)
    pair = pair_of(uri)
    common: Any = {
        "parent_weights": pair.parent_weights,
        "quantized_weights": pair.quantized_weights,
        "effort": effort,
        "progress": progress,
    }
    chosen = target_for(pair.quantized, target)
    if served is not None:
        found = measure.run_served(Path(served[0]), Path(served[1]), chosen, **common)
    else:
        found = measure.run(pair.parent.artifact, pair.quantized.artifact, chosen, cache=cache_folder(), **common)
    return attach_content(pair.quantized, pair.quantized_weights, found, signer)
