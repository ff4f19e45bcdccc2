"""The shipped skills model, its twin and quantized files, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_quantgov.demo.models import SKILLS


@pytest.fixture(scope="session")
def skills_folder() -> Path:
    return SKILLS


@pytest.fixture(scope="session")
def skills_twin(skills_folder, tmp_path_factory) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin

    return gguf_twin(skills_folder, tmp_path_factory.mktemp("twin")).path


@pytest.fixture(scope="session")
def skills_q2(skills_twin, tmp_path_factory) -> Path:
    from mlflow_quantgov.artifact.runtimes.llama_cpp import quantize_gguf

    return quantize_gguf(skills_twin, tmp_path_factory.mktemp("q2") / "skills-Q2_K.gguf", "Q2_K").path
