"""What people paste into a policy to pin a parent, and the version that an alias goes back to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from mlflow_quantgov.lineage import facts_of
from mlflow_quantgov.policy.schema import ParentPin
from mlflow_quantgov.production.promotion import _parent_version

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
Run = Callable[..., tuple[int, str, str]]


def pasted(out: str) -> list[dict[str, str]]:
    """The last line that was printed, as YAML under `parents:`."""
    return yaml.safe_load(out.strip().splitlines()[-1])  # type: ignore[no-any-return]


def test_inspection_and_logging_give_the_same_line_that_pins_a_parent(run_in_store: Run, skills: Path) -> None:
    pin = ParentPin.of(facts_of(skills)).model_dump(mode="json")
    code, out, _ = run_in_store("inspect", str(skills), "--pin")
    assert code == 0 and pasted(out) == [pin]
    assert json.loads(run_in_store("inspect", str(skills), "--pin", "--json")[1])["pin"] == pin
    assert "pin" not in json.loads(run_in_store("inspect", str(skills), "--json")[1])
    code, out, error = run_in_store("log-parent", str(skills), "--name", "parent", "--register", "chat")
    assert code == 0 and pasted(out) == [pin], error
    logged = json.loads(run_in_store("log-parent", str(skills), "--name", "p", "--register", "chat", "--json")[1])
    assert {"weights": logged["digest"], "behaviour": logged["behaviour"]} == pin


def test_an_alias_goes_back_to_the_parent_and_not_to_its_weights_beside_other_files(
    run_in_store: Run, tmp_path: Path
) -> None:
    other = shutil.copytree(ARTIFACTS / "parent-bf16", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    for parent in (other, ARTIFACTS / "parent-bf16", other):
        assert run_in_store("log-parent", str(parent), "--name", "parent", "--register", "chat")[0] == 0
    to = ["--parent", "models:/chat/2", "--target", "cpu-llamacpp", "--name", "q", "--register", "chat"]
    code, _, error = run_in_store("log", str(ARTIFACTS / "tiny-Q8_0.gguf"), *to)
    assert code == 0, error
    assert _parent_version("chat", "4") == "2"
