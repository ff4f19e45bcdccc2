"""Two models that answer otherwise have two digests of weights, or two of behaviour; the same model has one of each."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.behaviour import behaviour_digest
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.artifact.tensors import open_safetensors, write_safetensors
from mlflow_quantgov.artifact.weights import weight_parts, weights_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SAID = st.dictionaries(st.text(max_size=3).filter(lambda key: key != "format"), JSON, max_size=3)


def digests(path: Path) -> tuple[str, str]:
    """Of weights and behaviour."""
    return build_manifest(path).weights_digest, behaviour_digest(path)


def with_header(path: Path, metadata: dict[str, Any] | None, **layout: Any) -> None:
    """Give a safetensors file another `__metadata__`; offsets are counted from the header's end, and stay."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    text = json.dumps(header if metadata is None else {"__metadata__": metadata} | header, **layout).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def saying(folder: Path, metadata: dict[str, Any] | None, name: str = "model.safetensors", tensor: str = "x") -> Path:
    """A folder with a small file whose header says something."""
    write_safetensors(folder / name, {tensor: np.zeros(4, np.float32)})
    with_header(folder / name, metadata)
    return folder


def ggufs(folder: Path, *files: tuple[str, str, dict[str, int]], rope: float = 1.0, split: bool = False) -> Path:
    """A folder with GGUF files: name, architecture, and tensors of one repeated number; `split`: parts of one model."""
    folder.mkdir(exist_ok=True)
    for number, (name, architecture, tensors) in enumerate(files):
        writer = gguf.GGUFWriter(folder / name, architecture)
        if split:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", len(files))
        writer.add_float32("llama.rope.freq_base", rope)
        for tensor, value in tensors.items():
            writer.add_tensor(tensor, np.full((2, 32), value, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder


def _turn_blocks(data: dict[str, Any]) -> None:
    data["block_size"] = data["block_size"][::-1]


def _drop_activations(data: dict[str, Any]) -> None:
    data["act_quant_kwargs"] = None


def _other_type(data: dict[str, Any]) -> None:
    data["dtype"]["_data"] = "float16"


@pytest.mark.parametrize(
    ("name", "change"),
    [("torchao-int8wo", _turn_blocks), ("torchao-int8dyn", _drop_activations), ("torchao-intx8", _other_type)],
)
def test_how_torchao_reads_its_codes_is_behaviour(
    artifacts: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / name, folder)
    before, file = digests(folder), folder / "model.safetensors"
    said: dict[str, Any] = dict(open_safetensors(file).metadata)
    key = next(key for key in sorted(said) if "q_proj" in key)  # a square matrix
    meant = json.loads(said[key])
    change(meant["_data"])
    with_header(file, said | {key: json.dumps(meant)})
    assert digests(folder)[0] == before[0]
    assert digests(folder)[1] != before[1]


def test_how_a_header_is_written_and_cut_does_not_count(artifacts: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    shutil.copytree(artifacts / "torchao-int8dyn", whole)
    before, file = digests(whole), whole / "model.safetensors"
    opened = open_safetensors(file)
    said = {key: text for key, text in reversed(opened.metadata.items()) if key != "format"}
    said = {key: json.dumps(json.loads(text), indent=3, sort_keys=True) for key, text in said.items()}
    shutil.copytree(whole, parts)
    with_header(file, {"format": "pt", **said}, indent=1)
    assert digests(whole) == before
    opened = open_safetensors(file)
    (parts / "model.safetensors").unlink()
    names = sorted(opened.tensors)
    for number, some in enumerate((names[:3], names[3:]), 1):
        stored = {name: opened.tensors[name] for name in some}
        bf16 = frozenset(name for name, one in stored.items() if one.dtype == "BF16")
        arrays = {name: np.array(one.stored()) for name, one in stored.items()}
        write_safetensors(
            parts / f"model-0000{number}-of-00002.safetensors", arrays, bf16=bf16, metadata=opened.metadata
        )
    assert digests(parts) == before


@pytest.mark.parametrize(
    ("name", "weights", "behaviour"),
    [
        ("parent-bf16", "6f977cda8666c95f", "b49656be337f01d6"),
        ("awq-w4g32", "ae3b623cee71131a", "bcc2561ccf01e141"),
        ("tiny-Q8_0.gguf", "e6a6986f96b93e6e", "27cc56356057532c"),
    ],
)
def test_digests_that_are_recorded_stay(artifacts: Path, name: str, weights: str, behaviour: str) -> None:
    """Pins, statements and ledgers hold them: headers that say `format: pt` alone, and one GGUF file, change nothing."""
    assert [one[7:23] for one in digests(artifacts / name)] == [weights, behaviour]


def test_the_usual_header_says_nothing(tmp_path: Path) -> None:
    found = {digests(saying(tmp_path, said)) for said in (None, {}, {"format": "pt"})}
    assert len(found) == 1
    assert digests(saying(tmp_path, {"format": "pt", "anything": "x"})) not in found
    assert digests(saying(tmp_path, {"format": "mlx"})) not in found, "loaders go by other libraries' names"


@settings(max_examples=30)
@given(first=SAID, second=SAID, indent=st.sampled_from([None, 0, 2]))
@example(first={"x": {"a": 1}}, second={"x": '{"a":1}'}, indent=2)
@example(first={"x": [1]}, second={"x": [1.0]}, indent=None)
@example(first={"x": []}, second={}, indent=None)
def test_headers_count_by_what_they_say(first: dict[str, Any], second: dict[str, Any], indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found, meant = [], []
        for said in (first, second):
            texts = {key: json.dumps(value, indent=indent) for key, value in said.items()}
            found.append(behaviour_digest(saying(Path(scratch), texts)))
            turned = {key: json.dumps(said[key], sort_keys=isinstance(said[key], dict)) for key in reversed(said)}
            assert behaviour_digest(saying(Path(scratch), turned)) == found[-1]
            meant.append(json.dumps(said, sort_keys=True))
    assert (found[0] == found[1]) == (meant[0] == meant[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "a": 2}', '{"a": 2}'),  # a name twice: no JSON that all read alike
        ('["x"]', '"[\\"x\\"]"'),
        ("[" * 100_000, "[" * 99_999),
        ("[\ud800]", "[\ud801]"),
        ("1" * 5000, "[" + "1" * 5000 + "]"),
    ],
    ids=["twice", "quoted", "deep", "surrogate", "long"],
)
def test_texts_that_are_no_sound_json_count_as_they_stand(tmp_path: Path, one: str, other: str) -> None:
    assert behaviour_digest(saying(tmp_path, {"x": one})) != behaviour_digest(saying(tmp_path, {"x": other}))


def test_files_that_contradict_each_other_are_told_apart(tmp_path: Path) -> None:
    """transformers takes what the last file says."""
    found = set()
    for first, second in (("1", "2"), ("2", "1"), ("1", "1"), ("2", "2")):
        saying(tmp_path, {"blocks": first}, "model-00001-of-00002.safetensors", "x")
        saying(tmp_path, {"blocks": second}, "model-00002-of-00002.safetensors", "y")
        found.add(behaviour_digest(tmp_path))
    assert len(found) == 4


@pytest.mark.parametrize("names", [("model.gguf", "mmproj.gguf"), ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")])
def test_no_other_model_and_projector_have_the_same_digests(tmp_path: Path, names: tuple[str, str]) -> None:
    """Each pair of files with tensors `a` and `b` of two values, or without them; file names alone may differ."""
    some = [
        {name: value for name, value in zip("ab", values, strict=True) if value is not None}
        for values in itertools.product((None, 1, 2), repeat=2)
        if values != (None, None)
    ]
    met: dict[tuple[str, str], Any] = {}
    for number, (model, projector, turned) in enumerate(itertools.product(some, some, (False, True))):
        files = (("llama", model), ("clip", projector))
        folder = ggufs(
            tmp_path / str(number),
            *[(name, *file) for name, file in zip(names, files[:: -1 if turned else 1], strict=True)],
        )
        assert met.setdefault(digests(folder), files) == files


def test_parts_of_one_gguf_model_have_the_digest_of_the_whole(tmp_path: Path) -> None:
    whole = ggufs(tmp_path / "whole", ("m.gguf", "llama", {"a": 1, "b": 2}))
    files = ("m-00001-of-00002.gguf", "llama", {"b": 2}), ("m-00002-of-00002.gguf", "llama", {"a": 1})
    parts = ggufs(tmp_path / "parts", *files, split=True)
    assert digests(parts)[0] == digests(whole)[0]
    apart = ggufs(tmp_path / "apart", *files)
    assert digests(apart)[0] != digests(whole)[0], "llama.cpp reads the first alone, whatever they are called"


@pytest.mark.parametrize("projector", [{"a": 2}, {"b": 2}])
def test_tensors_beside_a_model_are_called_by_their_files(tmp_path: Path, projector: dict[str, int]) -> None:
    folder = ggufs(tmp_path / "m", ("m.gguf", "llama", {"a": 1}), ("mmproj.gguf", "clip", projector))
    assert [one.name for one in weight_parts(folder)] == ["m.gguf/./a", f"mmproj.gguf/./{next(iter(projector))}"]
    assert weights_digest(weight_parts(folder)) == build_manifest(folder).weights_digest


def _exchanged(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


SECOND = ["extra.safetensors", "adapter_model.safetensors", "sub/model.safetensors", "model-00001-of-00001.safetensors"]


@pytest.mark.parametrize("second", SECOND)
def test_files_that_a_loader_leaves_aside_do_not_stand_for_the_model(tmp_path: Path, second: str) -> None:
    """transformers takes tensors with and without `model.` before their names, and reads one of the two files."""
    (tmp_path / "sub").mkdir()
    saying(tmp_path, {"blocks": "1"}, tensor="model.layers")
    saying(tmp_path, {"others": "2"}, second, tensor="layers")
    before = digests(tmp_path)
    _exchanged(tmp_path / "model.safetensors", tmp_path / second)
    after = digests(tmp_path)
    assert after[0] != before[0] and after[1] != before[1]


@pytest.mark.parametrize("rest", SECOND)
def test_a_model_without_some_of_its_tensors_is_not_the_whole(tmp_path: Path, rest: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    (cut / "sub").mkdir(parents=True)
    whole.mkdir()
    write_safetensors(whole / "model.safetensors", {name: np.zeros(4, np.float32) for name in "ab"})
    saying(cut, None, tensor="a")
    saying(cut, None, rest, tensor="b")
    assert digests(cut)[0] != digests(whole)[0]


@pytest.mark.parametrize("also", ["model.safetensors", "extra.safetensors", "sub/model-00001-of-00002.safetensors"])
@pytest.mark.parametrize("index", [True, False])
def test_shards_count_as_the_whole_and_not_beside_other_files(tmp_path: Path, index: bool, also: str) -> None:
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    (shards / "sub").mkdir(parents=True)
    whole.mkdir()
    names = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate("ab", 1)}
    for name, file in names.items():
        saying(shards, None, file, tensor=name)
    if index:
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    write_safetensors(whole / "model.safetensors", {name: np.zeros(4, np.float32) for name in "ab"})
    assert digests(shards)[0] == digests(whole)[0]
    write_safetensors(whole / "model.safetensors", {name: np.zeros(4, np.float32) for name in "abc"})
    saying(shards, None, also, tensor="c")
    assert digests(shards)[0] != digests(whole)[0]


def test_a_name_by_which_a_pickle_is_loaded_instead_counts(tmp_path: Path) -> None:
    """Without a file of the usual name transformers takes pytorch_model.bin."""
    saying(tmp_path, None)
    alone = digests(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert digests(tmp_path) == alone
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    other = digests(tmp_path)
    (tmp_path / "other.safetensors").rename(tmp_path / "model.safetensors")
    assert digests(tmp_path)[0] != other[0]
    assert [one.name for one in weight_parts(tmp_path)] == ["x", "pytorch_model.bin"], "as before"


def test_a_shard_that_the_configuration_names_alone_counts_by_its_file(tmp_path: Path) -> None:
    names = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate("ab", 1)}
    for name, file in names.items():
        saying(tmp_path, None, file, tensor=name)
    (tmp_path / "config.json").write_text(json.dumps({"transformers_weights": names["a"]}))
    assert [one.name for one in weight_parts(tmp_path)] == [f"{file}/./{name}" for name, file in names.items()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors.index.json", "["),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../x"}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
        ("config.json", "[]"),
    ],
)
def test_a_folder_that_no_loader_could_open_still_has_a_digest(tmp_path: Path, name: str, text: str) -> None:
    for number in (1, 2):
        saying(tmp_path, None, f"model-0000{number}-of-00002.safetensors", tensor=str(number))
    (tmp_path / name).write_text(text)
    assert [one.name for one in weight_parts(tmp_path)] == [f"model-0000{n}-of-00002.safetensors/./{n}" for n in (1, 2)]
    assert digests(tmp_path)


def test_safetensors_with_tensors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = set()
    for values in ((1, 2), (2, 1)):
        for name, value in zip(("model.safetensors", "other.safetensors"), values, strict=True):
            write_safetensors(tmp_path / name, {"x": np.full(4, value, np.float32)})
        found.add(build_manifest(tmp_path).weights_digest)
    assert len(found) == 2


@pytest.mark.parametrize("name", ["license.gguf", "README-Q8_0.gguf", "notice.gguf"])
def test_a_model_that_is_called_like_a_licence_says_how_it_computes(tmp_path: Path, name: str) -> None:
    found = {digests(ggufs(tmp_path, (name, "llama", {"a": 1}), rope=rope)) for rope in (1.0, 2.0)}
    assert len(found) == 2


def test_code_and_templates_count_whatever_they_are_called(tmp_path: Path) -> None:
    folder = saying(tmp_path, None)
    before = behaviour_digest(folder)
    for name in ("LICENSE", "LICENSE-MIT", "license.txt", "README.md", "NOTICE.rst", ".gitattributes"):
        (folder / name).write_text(name)
    assert behaviour_digest(folder) == before
    for name in ("license.py", "readme.jinja", "notice.json"):
        (folder / name).write_text(name)
        assert behaviour_digest(folder) != before
        (folder / name).unlink()


def test_a_file_that_is_called_gguf_is_not_taken_for_a_header(tmp_path: Path) -> None:
    """Of two headers one is the model's: the other, in a file called `gguf`, must not stand for it."""
    headers = []
    for rope in (1.0, 2.0):
        data = (ggufs(tmp_path / str(rope), ("m.gguf", "llama", {"a": 1}), rope=rope) / "m.gguf").read_bytes()
        headers.append(data[: -2 * 32 * 4])
    for rope, header in zip((1.0, 2.0), reversed(headers), strict=True):
        (tmp_path / str(rope) / "gguf").write_bytes(header)
    assert digests(tmp_path / "1.0") != digests(tmp_path / "2.0")
