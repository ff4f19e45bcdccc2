"""A registry with something for every request, and the requests themselves."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
POLICY_HERE = HERE.parent / "policy"
SPARE = 40
"""Versions that are made at once to be deleted one by one."""


@dataclass
class Scene:
    """`chat`: a parent, and twice a good 8-bit version with all evidence. `other`: a 4-bit version that nobody measured.

    `iris`: versions without language-model weights, which may go.
    """

    statement: dict[str, Any]
    """A statement about `other`."""
    spare: list[str] = field(default_factory=list)
    asked: int = 0

    def other(self) -> str:
        """One good version of `chat` and then the other."""
        self.asked += 1
        return "2" if self.asked % 2 else "3"


def build(database: str, folder: Path) -> Scene:
    """Fill an empty registry, in a process of its own so that this one keeps no connection."""
    told = folder / "scene.json"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            told.write_text(json.dumps(_build(database, folder)))
            status = 0
        except BaseException:  # the parent says so; a traceback helps whoever runs this
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit("the registry could not be filled")
    return Scene(**json.loads(told.read_text()))


def _build(database: str, folder: Path) -> dict[str, Any]:
    for path in (POLICY_HERE, POLICY_HERE / "seven_mistakes"):
        sys.path.insert(0, str(path))
    from dataclasses import replace

    from good_releases import LLAMA_CPP
    from whole_releases import Shelf, kernels

    from mlflow_quantgov.evidence.statement import Statement
    from mlflow_quantgov.gate.registry_store import open_store

    shelf = Shelf(open_store(f"quantgov:{database}"), folder)
    good = shelf.put(LLAMA_CPP)
    again = shelf.store.create_model_version("chat", shelf.store.get_model_version("chat", good).source)
    assert (good, str(again.version)) == ("2", "3"), "the versions have other numbers than the requests name"
    decision = shelf.decide(good)
    assert decision.allowed, decision.one_line(report="")
    # The same parent, logged with the switch behind which it serves: what a rollback goes to.
    shelf._register("chat", shelf._log(shelf._source(LLAMA_CPP.parent, folder), "parent", None, LLAMA_CPP.target))
    bare = replace(LLAMA_CPP, artifact="tiny-Q4_0.gguf")
    root = shelf._log(shelf._source(bare.artifact, folder), "quantized", ("chat", "1"), bare.target)
    shelf._register("other", root)
    pair = shelf._pair(bare, root)
    stated = Statement.about(pair.quantized.weights, kernels(pair), name="other")
    draft = folder / "iris-files"
    draft.mkdir()
    (draft / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    (draft / "model.skops").write_bytes(b"small")
    shelf.store.create_registered_model("iris")
    shelf.store.create_model_version("iris", str(draft))
    shutil.rmtree(folder / "made")
    return {"statement": json.loads(stated.to_bytes())}


Call = Callable[..., Any]
"""Method, path and JSON to the answer."""
Request = tuple[str, str, dict[str, Any], str]
"""Method, path, JSON, and who asks."""
API, OURS = "/api/2.0/mlflow", "/quantgov/api"


def alias(name: str, version: str, alias: str = "champion") -> Request:
    """Point an alias to a version."""
    body = {"name": name, "alias": alias, "version": version}
    return "POST", f"{API}/registered-models/alias", body, "ada"


def stage(name: str, version: str, to: str = "Production") -> Request:
    """Move a version to a stage, and the others out of it."""
    body = {"name": name, "version": version, "stage": to, "archive_existing_versions": True}
    return "POST", f"{API}/model-versions/transition-stage", body, "ada"


def statement(scene: Scene) -> Request:
    """Attach a statement that was not attached before."""
    scene.asked += 1
    made = json.loads(json.dumps(scene.statement))
    at = datetime.now(UTC) - timedelta(hours=2) + timedelta(milliseconds=scene.asked)
    made["predicate"]["provenance"]["measured_at"] = at.isoformat().replace("+00:00", "Z")
    return "POST", f"{OURS}/statements", {"name": "other", "version": "1", "statement": json.dumps(made)}, "ada"


def draw(scene: Scene) -> Request:
    """Draw for somebody who did not draw before."""
    scene.asked += 1
    return "POST", f"{OURS}/draws", {"name": "chat", "version": "2"}, f"person {scene.asked} {os.getpid()}"


def deletion(scene: Scene, call: Call) -> Request:
    """Delete a version that nothing needs; more are made when none is left."""
    if not scene.spare:
        for _ in range(SPARE):
            made = call("POST", f"{API}/model-versions/create", {"name": "iris", "source": "models:/iris/1"}, "ada")
            scene.spare.append(str(made.json()["model_version"]["version"]))
    return "DELETE", f"{API}/model-versions/delete", {"name": "iris", "version": scene.spare.pop()}, "ada"


OPERATIONS: dict[str, Callable[[Scene, Call], Request]] = {
    "promotion": lambda scene, call: alias("chat", scene.other()),
    "stage": lambda scene, call: stage("chat", scene.other()),
    "denial": lambda scene, call: alias("other", "1"),
    "attach": lambda scene, call: statement(scene),
    "draw": lambda scene, call: draw(scene),
    "rollback": lambda scene, call: alias("chat", "4"),
    "alias removal": lambda scene, call: (
        "DELETE", f"{API}/registered-models/alias", {"name": "chat", "alias": "champion"}, "ada"
    ),
    "deletion": deletion,
}  # fmt: skip
