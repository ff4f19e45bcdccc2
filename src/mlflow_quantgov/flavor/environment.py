"""The environment files of a saved model: requirements.txt, conda.yaml, python_env.yaml."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlflow_quantgov.errors import UsageError

# Runtime as targets spell it -> distributions that load a model in it.
RUNTIME_REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "llama.cpp": ("xllamacpp", "gguf"),
    "transformers": ("torch", "transformers", "accelerate", "safetensors"),
    "onnxruntime": ("onnxruntime", "onnxruntime-genai", "onnx", "tokenizers"),
    "openai": (),
}
# Runtime and format -> what loading that format takes besides.
FORMAT_REQUIREMENTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("transformers", "bitsandbytes"): ("bitsandbytes",),
    ("transformers", "torchao"): ("torchao",),
    ("transformers", "compressed-tensors"): ("compressed-tensors",),
    ("transformers", "gptq"): ("gptqmodel", "optimum"),
    ("transformers", "awq"): ("gptqmodel", "optimum"),
    ("transformers", "auto-round"): ("auto-round",),
    ("transformers", "hqq"): ("hqq",),
    ("transformers", "quanto"): ("optimum-quanto",),
    # Its twin is made by onnxruntime-genai's builder.
    ("onnxruntime", "full-precision"): ("onnx-ir", "torch", "transformers"),
}


_FLOORS = {"auto-round": "0.16", "hqq": "0.2.8", "optimum-quanto": "0.2.7"}
"""Oldest version that loads what this package reads, for libraries that no extra of it installs."""


def pinned(distribution: str) -> str:
    """`name==installed version`; where it is not installed here, the oldest version that loads such models.

    A local label (`2.13.0+cpu`) is left out: no package index has that version.
    """
    try:
        return f"{distribution}=={metadata.version(distribution).split('+')[0]}"
    except metadata.PackageNotFoundError:
        return _with_floor(distribution)


def _with_floor(distribution: str) -> str:
    """The requirement that an extra of this package states, or the floor written down here."""
    for line in metadata.requires("mlflow-quantgov") or ():
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == distribution and requirement.specifier:
            return f"{distribution}{requirement.specifier}"
    floor = _FLOORS.get(distribution)
    return f"{distribution}>={floor}" if floor else distribution


def default_requirements(runtime: str | None, format: str | None = None) -> list[str]:
    """Pinned requirements that load a model of a format in a runtime."""
    runtime = runtime or ""
    named = ["mlflow", "mlflow-quantgov", *RUNTIME_REQUIREMENTS.get(runtime, ())]
    if "xllamacpp" in named:
        from mlflow_quantgov.artifact.runtimes.llama_cpp.libraries import chosen

        # Where another package carries llama.cpp, that one ran the model.
        named[named.index("xllamacpp")] = chosen()
    return [pinned(name) for name in (*named, *FORMAT_REQUIREMENTS.get((runtime, format or ""), ()))]


def conda_environment(requirements: Sequence[str]) -> dict[str, Any]:
    """A conda environment that installs the requirements by pip."""
    return {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": list(requirements)}],
    }


def check_environment(
    conda_env: dict[str, Any] | str | None,
    pip_requirements: Sequence[str] | str | None,
    extra_pip_requirements: Sequence[str] | str | None,
) -> None:
    """Refuse what describes the same environment twice, or lies in a file that is not there.

    Raises:
        UsageError: More than one was given, or a file does not exist.
    """
    given = [one for one in (conda_env, pip_requirements, extra_pip_requirements) if one is not None]
    if len(given) > 1:
        raise UsageError(
            "Only one of conda_env, pip_requirements and extra_pip_requirements may be given.",
            why="They describe the same environment, and could contradict each other.",
            fix="keep extra_pip_requirements if the defaults only lack something",
        )
    for one in given:
        if isinstance(one, str) and not Path(one).is_file():
            raise UsageError(
                f"The environment file {one} does not exist.", why="Nothing was logged.", fix=f"ls {Path(one).parent}"
            )


def write_environment(
    folder: Path,
    *,
    runtime: str | None,
    format: str | None = None,
    conda_env: dict[str, Any] | str | None,
    pip_requirements: Sequence[str] | str | None,
    extra_pip_requirements: Sequence[str] | str | None,
) -> None:
    """Write the three files, following the conventions of MLflow's own flavors."""
    if conda_env is not None:
        loaded: Any = yaml.safe_load(Path(conda_env).read_text()) if isinstance(conda_env, str) else conda_env
        lists = [part["pip"] for part in loaded.get("dependencies", []) if isinstance(part, dict) and "pip" in part]
        requirements = [line for part in lists for line in part]
    elif pip_requirements is not None:
        requirements = _lines(pip_requirements)
        loaded = conda_environment(requirements)
    else:
        requirements = default_requirements(runtime, format) + _lines(extra_pip_requirements or [])
        loaded = conda_environment(requirements)
    python = {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(loaded, sort_keys=False), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(python, sort_keys=False), encoding="utf-8")


def _lines(requirements: Sequence[str] | str) -> list[str]:
    if isinstance(requirements, str):
        text = Path(requirements).read_text(encoding="utf-8")
        return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return list(requirements)
