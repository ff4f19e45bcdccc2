"""What the quantizer saw: the parent run over calibration and production documents, compared layer by layer.

The layers of the quantized model are then run on the same inputs, which shows what the difference costs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_quantgov.artifact.behaviour import behaviour_digest
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.derivation.outputs import output_errors, quantized_pairs
from mlflow_quantgov.artifact.runtimes.transformers_observer import Observer, reason_not_observable
from mlflow_quantgov.errors import ArtifactError, EvidenceError
from mlflow_quantgov.evidence.calibration_words import FEWEST
from mlflow_quantgov.evidence.measure.calibration.layers import compare_layers
from mlflow_quantgov.evidence.measure.calibration.readings import Piece, Readings, encode, gather, pieces_of, run
from mlflow_quantgov.evidence.measure.progress import Progress, duration
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates.calibration import MAX_LAYERS, LayerRecord, Likeness, Observation

MAX_DOCUMENTS = 200
"""Documents of each side that are run; chosen by digest, so the same ones each time."""
MAX_TOKENS = 256
"""Tokens of a document that are run."""
_READING = 0.9
"""Share of the work that running the parent is, for the progress bar."""


@dataclass(frozen=True)
class ParentLayers:
    """Whose layers are looked at, and how much they are shown."""

    parent: Path
    """Folder of the full-precision parent."""
    parent_weights: str
    quantized: Path
    cache: Path | None = None
    """Folder in which readings are kept; None for none."""
    documents: int = MAX_DOCUMENTS
    tokens: int = MAX_TOKENS
    progress: Progress | None = None


@dataclass(frozen=True)
class View:
    """What was found, or why nothing was."""

    likeness: tuple[Likeness, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    observation: Observation | None = None
    unobserved: str | None = None
    """Why the layers were not observed, in one sentence."""


def look(asked: ParentLayers, calibration: Sequence[str], production: Sequence[str]) -> View:
    """Run the parent over both sides and compare what its quantized layers read.

    Args:
        asked: The models, and how many documents and tokens.
        calibration: Different documents, in an order that is random to what they say.
        production: The same for production.

    Raises:
        EvidenceError: A side has no document of two tokens, or a layer reads NaN.
        ArtifactError: The quantized model cannot be inspected.
    """
    sides = calibration[: asked.documents], production[: asked.documents]
    reason = reason_not_observable(asked.parent)
    if reason is None and min(map(len, sides)) < FEWEST:
        reason = f"each side needs at least {FEWEST} different documents"
    if reason is not None:
        return View(unobserved=_sentence(reason))
    with ExitStack() as stack:
        scratch = asked.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            readings = _readings(asked, sides, scratch / "activations")
        except ArtifactError as error:
            return View(unobserved=_sentence(error.what.rstrip(".")))
        return _compare(asked, *readings)


def _readings(
    asked: ParentLayers, sides: tuple[Sequence[str], Sequence[str]], folder: Path
) -> tuple[Readings, Readings]:
    """Both sides, of which only what no earlier run has kept is run."""
    libraries = provenance("transformers", "torch").libraries
    identity = [asked.parent_weights, behaviour_digest(asked.parent), asked.tokens, libraries]
    pieces = tuple(pieces_of(one, folder, identity) for one in sides)
    pending = [one for one in {piece.path: piece for side in pieces for piece in side}.values() if not one.kept()]
    if pending:
        _run(asked, pending)
    elif asked.progress:
        asked.progress("what the parent's layers read is kept from an earlier run", _READING)
    found = tuple(gather(one) for one in pieces)
    for name, side in zip(("calibration", "production"), found, strict=True):
        if not len(side.features):
            raise EvidenceError(
                f"No {name} document has two tokens of the parent's tokenizer.",
                why="The layers read nothing, so nothing can be compared.",
                fix="give longer documents, or --no-activations to compare the texts alone",
            )
    return found[0], found[1]


def _run(asked: ParentLayers, pending: Sequence[Piece]) -> None:
    """Run pieces, with the cost said first, by a trial of one length."""
    tell = asked.progress or (lambda _message, _share: None)
    tell("loading the parent", 0.0)
    observer = Observer(asked.parent)
    sizes = [[len(one) for one in encode(observer, piece, asked.tokens)] for piece in pending]
    total, done = max(1, sum(map(sum, sizes))), 0
    trial, begun = min(asked.tokens, observer.context), time.perf_counter()
    observer.read([0] * trial, [])
    seconds = total * (time.perf_counter() - begun) / trial
    documents = sum(map(len, sizes))
    tell(f"{documents:,} documents, {total:,} tokens through the parent: about {duration(seconds)}", 0.0)
    for piece, size in zip(pending, sizes, strict=True):
        run(observer, piece, asked.tokens)
        done += sum(size)
        tell(f"{done:,} of {total:,} tokens through the parent", _READING * done / total)


def _compare(asked: ParentLayers, calibration: Readings, production: Readings) -> View:
    """The test over the layers that are quantized, and what each costs."""
    sides = calibration, production
    if min(len(one.features) for one in sides) < FEWEST:
        return View(unobserved=_sentence(f"each side needs at least {FEWEST} documents of two tokens"))
    pairs = quantized_pairs(asked.quantized, asked.parent)
    if pairs is None:
        return View(unobserved=_sentence("the quantized model's matrices cannot be matched with the parent's"))
    # The embedding and the output matrix are no layers that are watched.
    wanted = {name.removesuffix(".weight") for name in pairs.quantized if pairs.child[name].rows > 1}
    names = [name for name in calibration.layers if name in wanted][:MAX_LAYERS]
    if not names:
        return View(unobserved=_sentence("no layer that is quantized could be watched in the parent"))
    inputs = tuple(calibration.layers[name] for name in names)
    compared = compare_layers(calibration.features, production.features, inputs)
    chosen = set(names)

    def inputs_of(matrix: str) -> Sequence[Floats] | None:
        name = matrix.removesuffix(".weight")
        return [one.vectors(one.layers[name]) for one in sides] if name in chosen else None

    tell = asked.progress
    costs = output_errors(
        pairs,
        inputs_of,
        (lambda share: tell("output errors, layer by layer", _READING + (1 - _READING) * share)) if tell else None,
    )
    layers = tuple(
        _record(name, one, costs.get(f"{name}.weight")) for name, one in zip(names, compared.distances, strict=True)
    )
    observation = Observation(
        parent=asked.parent_weights,
        library=calibration.library,
        documents=(len(calibration.features), len(production.features)),
        tokens=(calibration.tokens, production.tokens),
        tokens_of_errors=(len(calibration.vectors(0)), len(production.vectors(0))),
        unwatched=len(wanted) - len(names),
    )
    return View((compared.likeness,), layers, observation)


def _record(name: str, distance: float, errors: tuple[float, ...] | None) -> LayerRecord:
    rounded = tuple(float(np.format_float_positional(one, 6, fractional=False)) for one in errors or ())
    calibration, production = rounded or (None, None)
    return LayerRecord(name=name[:1000], distance=distance, calibration_error=calibration, production_error=production)


def _sentence(reason: str) -> str:
    return f"What the parent's layers see was not measured: {reason}."[:1000]
