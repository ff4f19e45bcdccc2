"""The manifest: every byte of the folder, the weights alone, and copies that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.artifact.manifest import FileEntry, Manifest, build_manifest, copy_with_manifest
from mlflow_quantgov.artifact.tensors import open_safetensors, read_safetensors, write_safetensors
from mlflow_quantgov.errors import ArtifactError


@pytest.fixture
def model(artifacts: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(artifacts / "parent-bf16", folder)
    return folder


def test_digests_are_what_they_are_said_to_be(model: Path) -> None:
    manifest = build_manifest(model)
    names = sorted(path.name for path in model.iterdir())
    assert [file.path for file in manifest.files] == names
    listed = []
    for name in names:
        data = (model / name).read_bytes()
        listed.append({"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    canonical = json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()
    assert manifest.digest == "sha256:" + hashlib.sha256(canonical).hexdigest()
    tensors = [
        [one.name, one.dtype, list(one.shape), hashlib.sha256(one.raw().tobytes()).hexdigest()]
        for one in open_safetensors(model / "model.safetensors").tensors.values()
    ]
    canonical = json.dumps(sorted(tensors), separators=(",", ":")).encode()
    assert manifest.weights_digest == "sha256:" + hashlib.sha256(canonical).hexdigest()
    assert manifest.weights_of == "tensors"
    assert manifest.total_size == sum(path.stat().st_size for path in model.iterdir())


def test_sharding_and_card_leave_the_weights_digest(artifacts: Path, model: Path) -> None:
    before = build_manifest(model)
    (model / "README.md").write_text("# A card")
    after = build_manifest(model)
    assert after.digest != before.digest
    assert after.weights_digest == before.weights_digest
    assert build_manifest(artifacts / "parent-sharded").weights_digest == before.weights_digest


def test_header_metadata_leaves_the_weights_digest(model: Path) -> None:
    before = build_manifest(model).weights_digest
    path = model / "model.safetensors"
    tensors = {one.name: one for one in open_safetensors(path).tensors.values()}
    patterns = {name: np.array(one.stored()) for name, one in tensors.items()}
    write_safetensors(path, patterns, bf16=frozenset(patterns), metadata={"author": "somebody else"})
    assert build_manifest(model).weights_digest == before


@pytest.mark.parametrize("name", ["parent-bf16/model.safetensors", "tiny-Q8_0.gguf"])
def test_one_flipped_weight_byte_changes_both_digests(artifacts: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / Path(name).name
    shutil.copy(artifacts / name, path)
    before = build_manifest(path)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    after = build_manifest(path)
    assert after.digest != before.digest and after.weights_digest != before.weights_digest
    assert before.verify(path) == [f"{path.name} has changed"]


def test_a_renamed_tensor_changes_the_weights_digest(model: Path) -> None:
    before = build_manifest(model).weights_digest
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data.replace(b"lm_head.weight", b"lm_hold.weight"))
    assert build_manifest(model).weights_digest != before


def test_a_single_file_keeps_its_name(artifacts: Path, tmp_path: Path) -> None:
    manifest = copy_with_manifest(artifacts / "tiny-Q4_0.gguf", tmp_path / "copy")
    assert [file.path for file in manifest.files] == ["tiny-Q4_0.gguf"]
    assert manifest == build_manifest(artifacts / "tiny-Q4_0.gguf")
    assert manifest.verify(tmp_path / "copy") == []


def test_weights_that_cannot_be_read_are_digested_as_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("card")
    before = build_manifest(tmp_path)
    assert before.weights_of == "files"
    (tmp_path / "README.md").write_text("another card")
    assert build_manifest(tmp_path).weights_digest == before.weights_digest
    (tmp_path / "model.onnx").write_bytes(b"weightz")
    assert build_manifest(tmp_path).weights_digest != before.weights_digest


def test_unread_weights_beside_tensors_count_too(model: Path) -> None:
    alone = build_manifest(model).weights_digest
    (model / "model.onnx").write_bytes(b"one")
    first = build_manifest(model)
    (model / "model.onnx").write_bytes(b"two")
    second = build_manifest(model)
    assert first.weights_of == "tensors and files"
    assert len({alone, first.weights_digest, second.weights_digest}) == 3


def test_verify_names_each_difference(model: Path) -> None:
    manifest = build_manifest(model)
    assert manifest.verify(model) == []
    (model / "generation_config.json").unlink()
    (model / "config.json").write_text("{}")
    (model / "extra").mkdir()
    (model / "extra" / "new.txt").write_text("x")
    assert manifest.verify(model) == [
        "generation_config.json is missing",
        "config.json has changed",
        "extra/new.txt was added",
    ]
    (model / "link").symlink_to("/etc/hostname")
    assert manifest.verify(model) == ["link is a link that leads out of the folder."]
    assert len(manifest.verify(model / "gone")) == 1


def test_copy_is_byte_for_byte_and_nested(model: Path, tmp_path: Path) -> None:
    (model / "a" / "b").mkdir(parents=True)
    (model / "a" / "b" / "ümläut 名.txt").write_bytes(b"x" * 10)
    manifest = copy_with_manifest(model, tmp_path / "deep" / "copy")
    assert manifest == build_manifest(model) == build_manifest(tmp_path / "deep" / "copy")
    assert manifest.verify(tmp_path / "deep" / "copy") == []


@pytest.mark.parametrize("trouble", ["link", "corrupt", "pipe"])
def test_a_copy_that_fails_leaves_nothing(model: Path, tmp_path: Path, trouble: str) -> None:
    if trouble == "link":
        (model / "escape").symlink_to("/etc/hostname")
    elif trouble == "pipe":
        os.mkfifo(model / "pipe")
    else:
        (model / "model.safetensors").write_bytes(b"not safetensors at all")
    target = tmp_path / "target"
    with pytest.raises(ArtifactError):
        copy_with_manifest(model, target / "copy")
    assert not target.exists() or list(target.iterdir()) == []


def test_an_existing_destination_is_left_alone(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("keep")
    with pytest.raises(ArtifactError, match="exists"):
        copy_with_manifest(model, target)
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_empty_and_missing_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(ArtifactError):
            build_manifest(source)
        with pytest.raises(ArtifactError):
            copy_with_manifest(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


ENTRIES = st.lists(
    st.builds(
        FileEntry,
        st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=20),
        st.integers(0, 2**50),
        st.text("0123456789abcdef", min_size=64, max_size=64),
    ),
    max_size=5,
    unique_by=lambda one: one.path,
)


@given(ENTRIES)
def test_json_round_trip_and_order(entries: list[FileEntry]) -> None:
    manifest = Manifest(tuple(sorted(entries, key=lambda one: one.path)), "sha256:" + "0" * 64)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert replace(manifest, files=tuple(reversed(manifest.files))).digest == manifest.digest


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "1" * 64},
        {"schema": "quantgov/manifest/v9"},
        {"weights_digest": "md5:1"},
        {"files": None},
        {"files": [{"path": "../up", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "/etc/passwd", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 1, "sha256": "zz"}]},
        {"files": [{"path": "a", "size": 1, "sha256": "0" * 64}] * 2},
    ],
)
def test_a_manifest_that_was_tampered_with(model: Path, change: dict[str, object]) -> None:
    data = json.loads(build_manifest(model).to_json()) | change
    if change.get("files"):
        listed = json.dumps(sorted(change["files"], key=lambda one: one["path"]), sort_keys=True, separators=(",", ":"))  # type: ignore[call-overload]
        data["digest"] = "sha256:" + hashlib.sha256(listed.encode()).hexdigest()
    with pytest.raises(ArtifactError, match="manifest is wrong"):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(ArtifactError, match="manifest is wrong"):
        Manifest.from_json(text)


def test_equal_values_in_another_type_are_other_weights(tmp_path: Path, artifacts: Path) -> None:
    tensors = {name: np.array(one) for name, one in read_safetensors(artifacts / "parent-bf16" / "model.safetensors")}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    assert build_manifest(tmp_path).weights_digest != build_manifest(artifacts / "parent-bf16").weights_digest
