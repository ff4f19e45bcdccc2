"""Archive and restore: what it costs, what a second version costs, and that the same bytes come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlflow_quantgov.artifact.manifest import Manifest, build_manifest
from mlflow_quantgov.artifact.tensors import open_safetensors
from mlflow_quantgov.errors import ArtifactError, QuantgovError, TamperingError, UsageError
from mlflow_quantgov.evidence.measure.archive import archive, restore
from mlflow_quantgov.evidence.predicates import Archive
from mlflow_quantgov.evidence.statement import parse_statement


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def size_of(folder: Path) -> int:
    return sum(len(data) for data in files_of(folder).values())


def test_the_same_bytes_come_back_and_took_less_room(model: Path, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    content = archive(model, manifest, str(tmp_path / "a"))
    content.verify_summary()
    assert restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back") == manifest
    assert files_of(tmp_path / "back") == files_of(model)
    zstd = sum(len(zstandard.compress(data, 19)) for data in files_of(model).values())
    assert size_of(tmp_path / "a") < 0.9 * zstd
    numbers = content.stated()
    assert numbers["stored_bytes"] + numbers["saved_by_compression"] == numbers["size_bytes"] == manifest.total_size
    assert not list((tmp_path / "a" / "writing").iterdir())
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("same", 0.0),
        ("other card", 0.001),
        ("longer header", 0.001),
        ("other shards", 0.002),
        ("one layer tuned", 0.18),
    ],
)
def test_a_second_version_costs_what_is_new_in_it(
    model: Path, versions: Callable[[str], Path], tmp_path: Path, kind: str, share: float
) -> None:
    store = str(tmp_path / "a")
    first = archive(model, build_manifest(model), store)
    before = size_of(tmp_path / "a")
    second = versions(kind)
    manifest = build_manifest(second)
    content = archive(second, manifest, store)
    assert content.stored_bytes <= share * first.stored_bytes
    assert size_of(tmp_path / "a") - before <= content.stored_bytes + 6000  # manifest and lists of pieces
    assert content.stated()["saved_by_deduplication"] >= (1 - share) * 0.98 * manifest.total_size
    restore(manifest.digest, store, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(second)


def test_one_file_alone_is_archived_too(model: Path, tmp_path: Path) -> None:
    file = model / "model.safetensors"
    manifest = build_manifest(file)
    archive(file, manifest, str(tmp_path / "a"))
    restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")
    assert files_of(tmp_path / "back") == {"model.safetensors": file.read_bytes()}


def test_empty_files_and_folders_below_folders_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    (folder / "a b" / "ü").mkdir(parents=True)
    (folder / "a b" / "ü" / "empty.bin").touch()
    (folder / "a b" / "one.bin").write_bytes(b"x")
    manifest = build_manifest(folder)
    archive(folder, manifest, str(tmp_path / "a"))
    restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(folder)


def test_an_archive_of_whole_files_is_still_read_and_counts(archived_before: Path, tmp_path: Path) -> None:
    """`tests/data/archive-of-whole-files` was written before there were pieces."""
    digest = f"sha256:{next((archived_before / 'manifests').iterdir()).stem}"
    manifest = restore(digest, str(archived_before), tmp_path / "back")
    assert build_manifest(tmp_path / "back") == manifest
    content = archive(tmp_path / "back", manifest, str(archived_before))
    assert content.stored_bytes == 0 and content.stated()["saved_by_deduplication"] == manifest.total_size
    assert not (archived_before / "chunks").exists()


def test_a_whole_file_that_was_damaged_is_named_and_replaced(archived_before: Path, tmp_path: Path) -> None:
    digest = f"sha256:{next((archived_before / 'manifests').iterdir()).stem}"
    manifest = restore(digest, str(archived_before), tmp_path / "good")
    entry = next(one for one in manifest.files if one.path == "model.safetensors")
    (archived_before / "blobs" / entry.sha256[:2] / entry.sha256).write_bytes(b"other bytes")
    with pytest.raises(TamperingError, match=r"model\.safetensors has changed in the archive"):
        restore(digest, str(archived_before), tmp_path / "back")
    archive(tmp_path / "good", manifest, str(archived_before))
    assert restore(digest, str(archived_before), tmp_path / "back") == manifest


def test_a_statement_of_whole_files_still_holds(archived_before: Path) -> None:
    content = parse_statement((archived_before / "statement.json").read_bytes()).content()
    assert isinstance(content, Archive)
    content.verify_summary()
    assert content.stated() == {"files": 2, "size_bytes": 840}


def test_what_it_costs_is_said_before(model: Path, tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"), progress=lambda words, done: said.append((words, done)))
    assert said[0][1] == 0.0 and "reads 2 files, 3.1 MB, and stores at most as much" in said[0][0]
    assert "free" in said[0][0] and said[-1][1] == 1.0
    said.clear()
    restore(
        manifest.digest, str(tmp_path / "a"), tmp_path / "b", progress=lambda words, done: said.append((words, done))
    )
    assert "reads 2 files, 3.1 MB from" in said[0][0] and said[-1][1] == 1.0


def test_a_file_that_changes_meanwhile_is_not_archived(model: Path, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    (model / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json changed while"):
        archive(model, manifest, str(tmp_path / "a"))
    with pytest.raises(UsageError, match="does not hold"):
        restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", "a\\b", ""])
def test_a_manifest_that_names_a_path_outside_is_refused(model: Path, tmp_path: Path, path: str) -> None:
    """Whoever can write the archive may put any manifest there, with a name that fits."""
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    entries = tuple(type(one)(path, one.size, one.sha256) for one in manifest.files[:1])
    hostile = Manifest(entries, manifest.weights_digest)
    name = tmp_path / "a" / "manifests" / f"{hostile.digest.removeprefix('sha256:')}.json"
    name.write_text(hostile.to_json())
    with pytest.raises(TamperingError, match=r"archived manifests/.* has been changed"):
        restore(hostile.digest, str(tmp_path / "a"), tmp_path / "x" / "back")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "x" / "outside").exists()


@pytest.mark.parametrize("digest", ["sha256:../../secret", "sha256:" + "A" * 64, "", "sha256:" + "a" * 63])
def test_a_digest_that_is_none_names_no_file(tmp_path: Path, digest: str) -> None:
    with pytest.raises(UsageError, match="no digest of a manifest"):
        restore(digest, str(tmp_path), tmp_path / "back")


def test_nothing_is_restored_over_something(model: Path, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (model, tmp_path / "link"):
        with pytest.raises(ArtifactError, match="exists"):
            restore(manifest.digest, str(tmp_path / "a"), folder)


def test_a_list_of_pieces_that_gives_other_bytes_is_found(model: Path, tmp_path: Path) -> None:
    """Every piece is sound, but two have changed places."""
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    (record,) = [path for path in (tmp_path / "a" / "files").rglob("*.json") if "model.layers" in path.read_text()]
    data = json.loads(record.read_text())
    data["pieces"][1], data["pieces"][2] = data["pieces"][2], data["pieces"][1]
    record.write_text(json.dumps(data))
    with pytest.raises(TamperingError, match=r"model\.safetensors has changed in the archive"):
        restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")
    assert archive(model, manifest, str(tmp_path / "a")).new_pieces == 0
    restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")


@pytest.mark.parametrize(
    "changed",
    [b"", b"{", b"[]", b'{"schema": "other", "pieces": []}', b'{"schema": "quantgov/archived-file/v1", "pieces": [["x", 1, null]]}',
     b'{"schema": "quantgov/archived-file/v1", "pieces": [["../../../secret", 1709656, null]]}', b"[" * 100_000],
)  # fmt: skip
def test_a_list_of_pieces_that_is_none_is_one_line(model: Path, tmp_path: Path, changed: bytes) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    for record in (tmp_path / "a" / "files").rglob("*.json"):
        record.write_bytes(changed)
    with pytest.raises(TamperingError, match="the list of its pieces has changed in the archive") as caught:
        restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")
    assert "and 1 more file" in caught.value.what and "quantgov archive" in caught.value.fix


@pytest.mark.parametrize("where", ["/proc/nowhere", "a-file"])
def test_a_place_that_cannot_be_written_is_one_line(
    model: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    with pytest.raises(QuantgovError, match="cannot be written"):
        archive(model, build_manifest(model), where)
    shutil.rmtree(model)


def test_gguf_is_cut_at_its_tensors_and_shares_them_with_safetensors(model: Path, tmp_path: Path) -> None:
    """The bytes of a tensor are the same in both containers, so they are one chunk."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, tensor in open_safetensors(model / "model.safetensors").tensors.items():
        raw = tensor.stored().view(np.uint8)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    store = str(tmp_path / "a")
    archive(model, build_manifest(model), store)
    manifest = build_manifest(tmp_path / "model.gguf")
    assert archive(tmp_path / "model.gguf", manifest, store).new_bytes < 2000
    assert restore(manifest.digest, store, tmp_path / "back") == manifest
