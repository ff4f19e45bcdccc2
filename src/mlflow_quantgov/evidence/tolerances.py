"""How far answers may be from recorded ones, runtime by runtime: nothing where it ran as recorded and repeats itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_quantgov.evidence.measure.determinism import repeats
from mlflow_quantgov.evidence.predicates import Fingerprint, Provenance, Side, TaskEval, Tolerance
from mlflow_quantgov.evidence.statistics.samples import highest_share

MACHINE = "machine"
"""Where the settings of an evaluation say which processor ran it."""
PROMPT_LIBRARIES = ("lm-eval", "datasets")
"""What makes a prompt from the task's files."""


@dataclass(frozen=True)
class Spread:
    """How far a runtime's honest answers may be apart."""

    share: float
    """Of items, those whose score may differ on another machine, in other batches or in another version."""
    logprob: float
    """Nats (and share of them) by which a log-probability may differ beside other neighbours."""


SPREADS = {
    "llama.cpp": Spread(0.02, 0.02),
    "transformers": Spread(0.02, 0.02),
    "onnxruntime": Spread(0.02, 0.02),
}
OTHERS = Spread(0.05, 0.05)
"""For runtimes that third parties add."""


def machine_words(machine: Fingerprint) -> dict[str, Any]:
    """What of a machine decides the last digits: its processor, and its GPU where it has one."""
    return {
        "processor": machine.cpu_model,
        "id": machine.cpu_id,
        "instruction_sets": list(machine.cpu_flags),
        "accelerator": machine.accelerator,
    }


def tolerance(
    evaluation: TaskEval, recorded: Side, now: Side, provenance: Provenance, machine: Mapping[str, Any]
) -> Tolerance:
    """What one side's answers may differ by.

    Args:
        evaluation: What was recorded.
        recorded: The side as it ran then.
        now: The side as it runs now.
        provenance: Libraries of now.
        machine: Processor of now, as `machine_words` gives it.
    """
    spread = SPREADS.get(now.runtime, OTHERS)
    why = _otherwise(evaluation, recorded, now, provenance, machine)
    if why is None:
        return Tolerance(exact=True, share=0.0, logprob=spread.logprob, why="it ran as recorded, and repeats itself")
    return Tolerance(exact=False, share=_share(evaluation, spread), logprob=spread.logprob, why=why[:1000])


def asks_alike(evaluation: TaskEval, provenance: Provenance) -> bool:
    """Whether prompts are made by the very libraries that made those of the evaluation."""
    then, now = evaluation.provenance.libraries, provenance.libraries
    return all(then.get(name) == now.get(name) for name in PROMPT_LIBRARIES)


def _otherwise(
    evaluation: TaskEval, recorded: Side, now: Side, provenance: Provenance, machine: Mapping[str, Any]
) -> str | None:
    """Why answers need not repeat bit by bit; None where they have to."""
    known = repeats(now)
    if not known.deterministic:
        return known.why
    for name in ("runtime", "version", "twin", "kernel", "behaviour"):
        was, is_now = getattr(recorded, name), getattr(now, name)
        if was != is_now:
            return f"its {name} was {was}, now {is_now}"
    for name in sorted(recorded.settings.keys() | now.settings.keys()):
        if recorded.settings.get(name) != now.settings.get(name):
            return f"its {name} was {recorded.settings.get(name)}, now {now.settings.get(name)}"
    then = evaluation.settings.get(MACHINE)
    if then != dict(machine):
        return "it was recorded on another processor" if then else "nobody recorded the processor"
    libraries = evaluation.provenance.libraries
    for name in sorted((libraries.keys() | provenance.libraries.keys()) - set(PROMPT_LIBRARIES)):
        if libraries.get(name) != provenance.libraries.get(name):
            return f"{name} was {libraries.get(name)}, now {provenance.libraries.get(name)}"
    return None


def _share(evaluation: TaskEval, spread: Spread) -> float | None:
    """The runtime's, or what the parent's own second answers allow where that is more.

    None where scores are graded and nobody asked twice: a small difference in a text then moves every score a little.
    """
    items = [item for task in evaluation.tasks for item in task.items]
    twice = [item for item in items if item.parent_again is not None]
    if twice:
        flips = sum(item.parent.score != item.parent_again for item in twice)
        return max(spread.share, highest_share(flips, len(twice)))
    graded = any(score not in {0.0, 1.0, -1.0} for item in items for score in (item.parent.score, item.quantized.score))
    return None if graded else spread.share
