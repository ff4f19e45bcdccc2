"""Measure random items of a task evaluation again, by somebody else than who measured."""

from __future__ import annotations

from pathlib import Path

import mlflow

from mlflow_quantgov.errors import LineageError, UsageError
from mlflow_quantgov.evidence.drawing import new_seed
from mlflow_quantgov.evidence.measure.progress import Progress
from mlflow_quantgov.evidence.predicates import TaskEval
from mlflow_quantgov.evidence.predicates.base import MAX_ITEMS
from mlflow_quantgov.evidence.statement import Statement, parse_statement
from mlflow_quantgov.flavor.download import LocalModel, cache_folder, local_model
from mlflow_quantgov.gate.clients.finding import find_gate
from mlflow_quantgov.versions import attach_content, record_of, registered, signer_of

ITEMS = 20
"""Items that are measured again where nobody says how many."""


def spot_check(
    uri: str,
    *,
    items: int = ITEMS,
    tasks: str | Path | None = None,
    statement: str | None = None,
    store: str | None = None,
    progress: Progress | None = None,
    key: str | Path | None = None,
) -> Statement:
    """Measure random items of a task evaluation again from the archived parent and the registered version, and attach what came out.

    The server draws the items, after the evaluation was attached and once for each person: asking again gives the same ones, and
    asking for more gives more. Where nothing is gated they are drawn here, and the statement says so.

    Args:
        uri: The quantized version, `models:/NAME/VERSION`.
        items: How many items; an evaluation of fewer is checked whole.
        tasks: Folder of the task files that were evaluated (their Python code runs on this machine); None for tasks that lm-eval
            ships.
        statement: Digest of the evaluation, or how it begins; None for the one that counts most.
        store: Folder or URL of the archive; None for `QUANTGOV_ARCHIVE`.
        progress: Called with a message and a fraction from 0 to 1.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Returns:
        The statement; its outcome is `pass`, `fail` (items differ beyond tolerance) or `inconclusive` (bytes not in the archive,
        runtime not here, too few items).

    Raises:
        UsageError: There is no such evaluation, its task files are not here, or no archive is named.
        TamperingError: The archive is damaged.
        EvidenceError: The server does not take it in.
    """
    from mlflow_quantgov.evidence.measure.spot_check import Bytes, Drawing
    from mlflow_quantgov.evidence.measure.spot_check import spot_check as measure

    if not 1 <= items <= MAX_ITEMS:
        raise UsageError(
            f"{items} items cannot be checked.",
            why=f"It takes 1 to {MAX_ITEMS:,}.",
            fix=f"quantgov spot-check {uri} --items {ITEMS}",
        )
    signer, model = signer_of(key), local_model(uri)
    record = record_of(model)
    if record is None or record.parent is None:
        raise LineageError(
            f"{uri} names no parent.",
            why="Both sides of an evaluation are measured again.",
            fix='log it with mlflow_quantgov.log_model(..., parent="models:/NAME/VERSION")',
        )
    digest, content, seed, by_gate = _draw(model, statement)
    weights = model.manifest().weights_digest
    found = measure(
        Drawing(content, digest, seed, "gate" if by_gate else "checker", items),
        Bytes(model.artifact, weights, record.parent["manifest"], store),
        Path(tasks) if tasks is not None else None,
        cache=cache_folder(),
        progress=progress,
    )
    return attach_content(model, weights, found, signer)


def _draw(model: LocalModel, wanted: str | None) -> tuple[str, TaskEval, str, bool]:
    """Digest and content of the evaluation, the seed of the draw, and whether a gate drew it."""
    from mlflow_quantgov.gate.facts.gathering import gather_client
    from mlflow_quantgov.gate.statements.draws import evaluation_named

    name, version = registered(model)
    gate = find_gate()
    if gate is not None:
        answer = gate.draw(name, version, wanted)
        found = parse_statement(str(answer["content"]).encode(), where="the server's evaluation")
        content, digest, seed = found.content(), found.digest, str(answer["seed"])
    else:
        mine = evaluation_named(gather_client(mlflow.MlflowClient(), name, version), wanted)
        content, digest, seed = mine.content, mine.digest, new_seed()
    assert isinstance(content, TaskEval)
    return digest, content, seed, gate is not None
