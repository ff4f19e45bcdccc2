"""Read a policy file."""

from __future__ import annotations

from pathlib import Path

from mlflow_quantgov.policy.schema import Policy
from mlflow_quantgov.resources import policies_dir
from mlflow_quantgov.yaml_files import parse_yaml, read_yaml, validate


def load_policy(path: str | Path | None = None) -> Policy:
    """Read a policy file; None for the shipped default.

    Raises:
        PolicyError: It does not exist, a key is misspelt, or it contradicts itself.
    """
    file = Path(path) if path is not None else policies_dir() / "default.yaml"
    return parse_policy(read_yaml(file), source=file.name)


def parse_policy(text: str, *, source: str) -> Policy:
    """Read a policy from text; `source` names it in errors.

    Raises:
        PolicyError: A key is misspelt, or it contradicts itself.
    """
    return validate(Policy, parse_yaml(text, source), source).model_copy(update={"text": text})
