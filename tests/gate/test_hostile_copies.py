"""What an author may put beside a model: refused by name, and neither followed, waited for, nor held in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_quantgov.evidence.store import EVIDENCE_FOLDER
from mlflow_quantgov.flavor.layout import LINEAGE_FILE, MANIFEST_FILE
from mlflow_quantgov.gate.facts.copies import MOST_COPIES
from mlflow_quantgov.gate.registry_store import open_store

pytestmark = pytest.mark.timeout(300)
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
POLICY = """
schema: quantgov/policy/v1
name: files
gates:
  files: {checks: [identity, lineage]}
rules:
  - models: "*"
    destinations: {"@champion": files}
"""
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.fixture
def version(
    new_sqlite_database: Callable[[], str], logged: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Path]:
    """A store that asks for little, and the folder of version 1 of `chat`, which has it."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    store: Any = open_store(f"quantgov:{new_sqlite_database()}")
    store.create_registered_model("parents")
    store.create_registered_model("chat")
    parent, child = tmp_path / "parent", tmp_path / "child"
    store.create_model_version("parents", logged(parent, "parent-bf16", None))
    store.create_model_version("chat", logged(child, "gptq-w4g32", parent))
    (child / EVIDENCE_FOLDER).mkdir(parents=True)
    (child / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: mlflow_quantgov.flavor, data: model}}\n", encoding="utf-8"
    )
    return store, child


def refusal(store: Any) -> str:
    """What the gate says when the version is asked for."""
    with pytest.raises(MlflowException) as refused:
        store.set_registered_model_alias("chat", "champion", "1")
    line = str(refused.value)
    assert "\n" not in line and line.isprintable() and "quantgov refused chat version 1" in line
    return line


def test_a_version_without_any_of_it_is_let_through(version: tuple[Any, Path]) -> None:
    store, _ = version
    store.set_registered_model_alias("chat", "champion", "1")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


KINDS: dict[str, Callable[[Path], object]] = {
    "a sparse file of 10 GB": sparse,
    "a pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file elsewhere": lambda path: path.symlink_to("/etc/hostname"),
    "a link to nowhere": lambda path: path.symlink_to("none"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": Path.mkdir,
    "no JSON": lambda path: path.write_text("{"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "nothing": Path.touch,
}


def test_a_copy_that_is_none_is_refused_by_name(version: tuple[Any, Path]) -> None:
    store, folder = version
    path = folder / EVIDENCE_FOLDER / "task-eval-0123456789abcdef.json"
    for kind, make in KINDS.items():
        make(path)
        assert path.name in refusal(store), kind
        path.rmdir() if kind == "a folder" else path.unlink()


def test_the_name_of_a_file_is_shown_and_does_nothing(version: tuple[Any, Path]) -> None:
    store, folder = version
    for name in ("two\nlines", "\x1b[31mred", "right \u202e left", "<script>alert(1)", "é" * 100, "-rf *"):
        path = folder / EVIDENCE_FOLDER / f"{name}.json"
        path.write_text("{")
        assert f"{EVIDENCE_FOLDER}/" in refusal(store)
        path.unlink()


def test_more_files_than_anybody_attaches_are_refused(version: tuple[Any, Path]) -> None:
    store, folder = version
    for number in range(MOST_COPIES + 1):
        (folder / EVIDENCE_FOLDER / f"{number}.json").touch()
    assert f"more than {MOST_COPIES:,} files" in refusal(store)


def test_copies_that_are_too_much_together_are_not_read(version: tuple[Any, Path]) -> None:
    store, folder = version
    for number in range(4):
        with (folder / EVIDENCE_FOLDER / f"{number}.json").open("wb") as file:
            file.truncate(80_000_000)
    assert "2.json" in refusal(store)


@pytest.mark.parametrize("place", ["quantgov/evidence", "quantgov"])
def test_a_folder_that_is_a_link_is_not_followed(version: tuple[Any, Path], tmp_path: Path, place: str) -> None:
    store, folder = version
    (folder / place).rename(tmp_path / "elsewhere")
    (folder / place).symlink_to(tmp_path / "elsewhere")
    assert "link" in refusal(store)


OURS = (
    b"", b"[]", b"{", b"[" * 50_000, b'{"a":' * 50_000, b"\xff", b"null", b'{"parent": [1]}', b'{"parent": {"uri": 1}}',
    b'{"files": {"a": 1}}', b'{"target": []}', b'{"recipe": 5, "target": {"name": []}}', b"9" * 10_000, b'{"role": NaN}',
)  # fmt: skip


@pytest.mark.parametrize("file", [MANIFEST_FILE, LINEAGE_FILE])
def test_our_own_files_may_hold_anything(version: tuple[Any, Path], file: str) -> None:
    store, folder = version
    for content in OURS:
        (folder / file).write_bytes(content)
        refusal(store)
        assert store.quantgov_facts("chat", "1").name == "chat"


def test_our_own_files_are_not_read_without_end(version: tuple[Any, Path]) -> None:
    store, folder = version
    for file in (MANIFEST_FILE, LINEAGE_FILE, "MLmodel"):
        path, kept = folder / file, (folder / file).read_bytes()
        for kind in ("a sparse file of 10 GB", "a link to a device", "a link to itself", "a pipe"):
            path.unlink()
            KINDS[kind](path)
            refusal(store)
        path.unlink()
        path.write_bytes(kept)
    store.set_registered_model_alias("chat", "champion", "1")


def test_an_mlmodel_that_explodes_does_not(version: tuple[Any, Path]) -> None:
    store, folder = version
    for bomb in (LAUGHS, MERGES):
        (folder / "MLmodel").write_text(
            f"{bomb}flavors: {{python_function: {{loader_module: *a11, data: *a11}}}}\n", encoding="utf-8"
        )
        assert "MLmodel" in refusal(store)


@pytest.mark.slow
def test_a_hundred_thousand_files_and_as_many_folders_are_refused(version: tuple[Any, Path]) -> None:
    store, folder = version
    for number in range(100_000):
        (folder / EVIDENCE_FOLDER / f"{number}.txt").touch()
    assert "more than" in refusal(store)


MEASURED = """
import resource, sys
from pathlib import Path
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.evidence.signing import read_attached
data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_attached(data)
except EvidenceError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
MB = 1 << 20
HUGE: dict[str, Callable[[], bytes]] = {
    "200 MB of brackets": lambda: b"[" * (200 * MB),
    "64 MB of lists": lambda: b"[" + b"[]," * (64 * MB // 3 - 2) + b"[]]",
    "64 MB of objects": lambda: b"[" + b'{"":0},' * (64 * MB // 7 - 2) + b"0]",
    "lists up to the bound": lambda: b"[" + b"[]," * 1_900_000 + b"[]]",
    "64 MB in one text": lambda: b'{"a": "' + b"\\u00e9" * (10 * MB) + b'"}',
    "600,000 signatures": lambda: json.dumps(
        {"payload": "", "payloadType": "x", "signatures": [{"sig": ""}] * 600_000}
    ).encode(),
    "a payload of 85 MB": lambda: b'{"payload": "' + b"AAAA" * (21 * MB) + b'", "payloadType": "x", "signatures": []}',
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUGE)
def test_a_statement_takes_a_bounded_memory_however_it_is_made(tmp_path: Path, kind: str) -> None:
    (tmp_path / "statement.json").write_bytes(HUGE[kind]())
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "statement.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 600 * 1024, "kilobytes above the file itself"
