"""Policies, targets, keys files and kernel tables that nobody wrote in good faith: one clear line, in bounded time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_quantgov.cli import main
from mlflow_quantgov.errors import PolicyError, visible
from mlflow_quantgov.evidence.kernel_table import read_table
from mlflow_quantgov.evidence.signing import load_trusted_keys
from mlflow_quantgov.evidence.targets import read_target
from mlflow_quantgov.policy.loader import load_policy, parse_policy
from mlflow_quantgov.policy.matching import rule_for
from mlflow_quantgov.yaml_files import MAX_BYTES, parse_yaml

# A bound where a hang would be, no measure of speed.
pytestmark = pytest.mark.timeout(600)
READERS = {"policy": load_policy, "target": read_target, "keys": load_trusted_keys, "kernels": read_table}
GOOD = """
schema: quantgov/policy/v1
name: small
gates:
  main:
    checks: [identity, task-eval]
    least_bits: 4
    capabilities:
      answers: {margin: 0.02, min_items: 10}
rules:
  - models: "*"
    destinations: {"@champion": main}
"""
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
BOMBS = {
    "a billion laughs": LAUGHS.encode(),
    "an alias of itself": b"a: &a [*a]",
    "a merge key": b"a: 1\n<<: {a: 2}",
    "a merge of a list": b"<<: [{a: 1}, {a: 2}]",
    "a key twice": b"name: a\nname: b",
    "a key twice in another spelling": b"1: a\n0x1: b",
    "many keys": "".join(f"{n}:\n" for n in range(20_000)).encode(),
    "a tag that runs code": b'!!python/object/apply:os.system ["touch /tmp/ran"]',
    "a tag of a name": b"a: !!python/name:os.system",
    "nested lists": b"[" * 100_000,
    "nested maps": b"{a: " * 200_000,
    "nested blocks": b"- " * 400_000,
    "a key that is a list": b"? [a, b]\n: c",
    "many documents": b"---\na: 1\n" * 5_000,
    "not UTF-8": b"\xff\xfe\x00",
    "UTF-16": "name: x".encode("utf-16"),
    "NUL": b"name: a\0b",
    "an escape": b"name: \x1b[31m",
    "nothing": b"",
    "a scalar": b"hello",
    "a list": b"[1, 2]",
    "too large": b"#" * (MAX_BYTES + 1),
    "a long number": b"name: " + b"9" * 100_000,
    "a long key": b"k" * 100_000 + b": 1",
    "a long word of quotes": b"name: '" + b"''" * 5_000,
    "a comment without end": b"{" + b"#" * 900_000,
    "directives": b"%TAG ! tag:x,2000:\n" * 4_000,
    "a date": b"schema: 2026-01-01\nname: 2026-01-01",
    "anchors": b"a: &a 1\n" * 10,
}


def said(error: PolicyError) -> str:
    """The message: one line, with nothing in it that steers a terminal."""
    line = error.one_line()
    assert visible(line, keep="") == line and "Fix: " in line
    assert len(line) < 2000
    return line


def refuses(kind: str, content: bytes, folder: Path) -> None:
    path = folder / "hostile.yaml"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as refused:
        READERS[kind](path)
    assert "hostile.yaml" in said(refused.value)


@pytest.mark.parametrize("bomb", BOMBS)
def test_every_bomb_is_one_clear_line(tmp_path: Path, bomb: str) -> None:
    refuses("policy", BOMBS[bomb].replace(b"/tmp", str(tmp_path).encode()), tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_refuses_as_the_policys_does(tmp_path: Path, kind: str) -> None:
    for bomb in (
        "a billion laughs",
        "a key twice",
        "a tag that runs code",
        "nested maps",
        "UTF-16",
        "a list",
        "too large",
    ):
        refuses(kind, BOMBS[bomb], tmp_path)
    for word in ("yes", "010", "1:30", "[]", ".nan", "!!set {a}"):
        refuses(kind, f"schema: {word}".encode(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [b"[" * 900_000, b"".join(b"%d:\n" % n for n in range(120_000)), b"'" + b"''" * 450_000, b"[" + b"[]," * 300_000],
)
def test_no_file_of_a_million_bytes_takes_for_ever(tmp_path: Path, content: bytes) -> None:
    refuses("policy", content, tmp_path)


def test_no_server_starts_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for bomb in ("a billion laughs", "an escape", "a key twice"):
        (tmp_path / "hostile.yaml").write_bytes(BOMBS[bomb])
        for option in ("--policy", "--keys"):
            with pytest.raises(SystemExit) as stopped:
                main(["server", option, str(tmp_path / "hostile.yaml")])
            out, err = capsys.readouterr()
            assert stopped.value.code == 2 and out == "" and "Traceback" not in err
            assert err.startswith("error: hostile.yaml: ") and err.count("Fix:") == 1 and visible(err) == err


def test_a_pipe_a_device_and_a_sparse_file_are_not_waited_for(tmp_path: Path) -> None:
    pipe, sparse, folder = tmp_path / "pipe.yaml", tmp_path / "sparse.yaml", tmp_path / "folder.yaml"
    os.mkfifo(pipe)
    folder.mkdir()
    with sparse.open("wb") as file:
        file.truncate(10 << 30)
    for path in (pipe, Path("/dev/zero"), sparse, folder, tmp_path / "none.yaml", tmp_path / ("n" * 300)):
        with pytest.raises(PolicyError) as refused:
            load_policy(path)
        said(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("margin: 0.02", "margin: .nan", "margin"),
        ("margin: 0.02", "margin: -0.02", "margin"),
        ("margin: 0.02", "margin: .inf", "margin"),
        ("margin: 0.02", "margin: 1e999", "margin"),
        ("margin: 0.02", "margin: true", "margin"),
        ("margin: 0.02", "margin: yes", "line 9"),
        ("margin: 0.02", "margin: 1:30", "line 9"),
        ("margin: 0.02", "margin: 2026-01-01", "margin"),
        ("min_items: 10", "min_items: 010", "line 9"),
        ("min_items: 10", "min_items: true", "min_items"),
        ("min_items: 10", "min_items: 1.5", "min_items"),
        ("min_items: 10", "min_items: " + "9" * 5000, ""),
        ("least_bits: 4", "least_bits: .nan", "least_bits"),
        ("least_bits: 4", "least_bits: -1", "least_bits"),
        ("least_bits: 4", "least_bits: [4]", "least_bits"),
        ("least_bits", "least_bit", "did you mean 'least_bits'"),
        ("margin", '"mar\\egin"', "did you mean 'margin'"),
        ("name: small", "name: off", "line 3"),
        ("name: small", "name: ''", "name"),
        ('models: "*"', 'models: "' + "*a" * 400 + '"', "models"),
        ('"@champion": main', '"@champion": nobody', "nobody"),
        ("checks: [identity, task-eval]", "checks: identity", "checks"),
        ("checks: [identity, task-eval]", "checks: [identify]", "checks"),
    ],
)
def test_a_value_that_would_mean_something_else_is_named(old: str, new: str, names: str) -> None:
    parse_policy(GOOD, source="p.yaml")
    assert old in GOOD
    with pytest.raises(PolicyError) as refused:
        parse_policy(GOOD.replace(old, new, 1), source="p.yaml")
    assert names in said(refused.value)


def test_no_glob_takes_long() -> None:
    policy = parse_policy(GOOD.replace('models: "*"', 'models: "' + "*a" * 240 + 'b"'), source="p.yaml")
    assert rule_for(policy, "a" * 5000) is None


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        parse_yaml(data.decode("utf-8", "replace"), "f.yaml")
    except PolicyError as error:
        said(error)


_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_values = st.recursive(_plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner))


@settings(max_examples=40)
@given(_values, st.sampled_from(["name", "gates", "rules", "schema", "mode", "x"]))
def test_no_value_breaks_the_policy(value: object, key: str) -> None:
    good = yaml.safe_load(GOOD) | {key: value}
    try:
        parse_policy(yaml.safe_dump(good), source="p.yaml")
    except PolicyError as error:
        said(error)
