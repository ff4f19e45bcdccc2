"""Log a parent and its 8-bit version, measure everything that the policy asks for, and promote by evidence.

Needs a gated server (`quantgov server --policy ...`) named by MLFLOW_TRACKING_URI, and QUANTGOV_ARCHIVE.
The models are the very small ones of `quantgov demo --quick`; put your own paths in their place.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow_quantgov as qg
from mlflow_quantgov.demo.cast import skills
from mlflow_quantgov.evidence.targets import capture, find_target

MODEL = "example-skills"


def main() -> int:
    """Return the exit code: 0 where the version was promoted."""
    folder = Path(tempfile.mkdtemp(prefix="quantgov-example-"))
    cast = skills(folder)
    target = folder / "this-machine.yaml"
    template = find_target("cpu-llamacpp").model_copy(update={"must_improve": "memory"})
    capture("this-machine", template, target)

    parent = qg.log_parent(cast.parent, name="parent", registered_model_name=MODEL, target=target)
    parent_uri = f"models:/{MODEL}/{parent.registered_model_version}"
    quantized = qg.log_model(cast.high, name="q8", parent=parent_uri, target=target, registered_model_name=MODEL)
    uri = f"models:/{MODEL}/{quantized.registered_model_version}"
    print("before measuring:", qg.promote(uri, "@champion").one_line())

    qg.archive(uri)
    qg.drill(uri, prompt=cast.prompt)
    qg.confirm_kernels(uri)
    qg.benchmark(uri, rounds=9)
    qg.measure_fidelity(uri, cast.text)
    qg.evaluate(uri, cast.tasks)
    decision = qg.promote(uri, "@champion")
    print("with evidence:", decision.one_line())
    return decision.exit_code


if __name__ == "__main__":
    sys.exit(main())
