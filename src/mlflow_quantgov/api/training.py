"""Record the quantization-aware training that a version below four bit rests on."""

from __future__ import annotations

import re
from pathlib import Path

from mlflow_quantgov.errors import LineageError, UsageError, no_such_file
from mlflow_quantgov.evidence.measure.documents import file_digest
from mlflow_quantgov.evidence.measure.provenance import provenance
from mlflow_quantgov.evidence.predicates import Training
from mlflow_quantgov.evidence.statement import Statement
from mlflow_quantgov.flavor.download import local_model
from mlflow_quantgov.versions import attach_content, pair_of, registered, signer_of

_DIGEST = re.compile(r"^(sha256:)?[0-9a-f]{64}$")


def record_training(
    uri: str,
    checkpoint: str,
    *,
    run: str,
    steps: int,
    data: str | Path,
    code_version: str,
    key: str | Path | None = None,
) -> Statement:
    """State which training made the checkpoint that a version is rounded from, and attach the statement.

    Digests are computed here from the files; what the gate believes it computes again from its own.

    Args:
        uri: The quantized version.
        checkpoint: The registered version with the trained latent full-precision weights, `models:/NAME/VERSION`.
        run: MLflow run id, or another name under which the run can be found.
        steps: Optimizer steps.
        data: The training data: a file, or its digest (`sha256:...`) where it lies elsewhere.
        code_version: Commit or release of the training code.
        key: Private key file to sign with; None for `QUANTGOV_SIGNING_KEY`, and unsigned without it.

    Raises:
        UsageError: The checkpoint is not registered, or something is left empty; the data is neither a file nor a digest.
        LineageError: The checkpoint is no full-precision model, or is the parent itself.
    """
    if steps < 1 or not run.strip() or not code_version.strip():
        raise UsageError(
            "A training is stated with its run, at least one step, and the version of its code.",
            why="Whoever doubts the checkpoint must be able to find and repeat what made it.",
            fix=f"quantgov training {uri} --checkpoint {checkpoint} --run RUN --steps STEPS --data FILE --code VERSION",
        )
    signer, digest = signer_of(key), _data_digest(data)
    pair = pair_of(uri)
    trained = local_model(checkpoint)
    name, version = registered(trained)
    facts = trained.facts()
    log = f"quantgov log-parent CHECKPOINT --name {name} --register {name}"
    if facts.quantization.is_quantized:
        raise LineageError(
            f"{checkpoint} is quantized ({facts.quantization.format}), not a full-precision checkpoint.",
            why="Training moves latent full-precision weights; the quantized ones are their rounding.",
            fix=log,
        )
    if facts.weights == pair.parent_weights:
        raise LineageError(
            f"{checkpoint} holds the weights of the parent of {uri}: nothing was trained.",
            why="A model that was quantized after training has no trained checkpoint.",
            fix=log,
        )
    content = Training.measured(
        provenance=provenance(),
        run=run,
        checkpoint=facts.weights,
        checkpoint_uri=f"models:/{name}/{version}",
        steps=steps,
        data_digest=digest,
        code_version=code_version,
    )
    return attach_content(pair.quantized, pair.quantized_weights, content, signer)


def _data_digest(data: str | Path) -> str:
    """Digest of a file, or the one that was given."""
    if isinstance(data, str) and _DIGEST.match(data):
        return data if data.startswith("sha256:") else f"sha256:{data}"
    path = Path(data)
    if not path.is_file():
        raise no_such_file(path, "Without the digest of its data nobody can tell what was trained on.")
    return file_digest(path)
