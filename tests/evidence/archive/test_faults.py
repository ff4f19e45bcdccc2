"""A flipped bit, a missing or shortened piece, a killed writer, a full disk: nothing is lost, and the next restore says which file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_quantgov.artifact.manifest import Manifest, build_manifest
from mlflow_quantgov.errors import ArtifactError, QuantgovError, TamperingError, UnreachableError
from mlflow_quantgov.evidence.measure.archive import DamagedArchiveError, archive, restore
from mlflow_quantgov.evidence.measure.archive import store as store_module
from mlflow_quantgov.evidence.measure.archive.place import LocalPlace

WRITER = """
import sys
from pathlib import Path
from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import QuantgovError
from mlflow_quantgov.evidence.measure.archive import archive
model, waits_at = Path(sys.argv[1]), float(sys.argv[3])
print("ready", flush=True)
def report(words, done):
    print(words, flush=True)
    if done >= waits_at:
        sys.stdin.read()
try:
    archive(model, build_manifest(model), sys.argv[2], progress=report)
except QuantgovError as error:
    sys.exit(error.one_line())
"""


def piece_of(store: Path, manifest: Manifest, layer: int) -> Path:
    """The coded piece of one layer's tensor."""
    import json

    entry = next(one for one in manifest.files if one.path.endswith(".safetensors"))
    record = json.loads((store / "files" / entry.sha256[:2] / f"{entry.sha256}.json").read_text())
    sha256 = next(piece for piece, _, tensor in record["pieces"] if tensor and f"layers.{layer}." in tensor)
    return store / "chunks" / sha256[:2] / sha256


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "has changed in the archive"),
    "shortened": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "has changed in the archive"),
    "empty": (lambda path: path.write_bytes(b""), "has changed in the archive"),
    "missing": (lambda path: path.unlink(), "is missing from the archive"),
    "endless": (lambda path: os.truncate(path, 1 << 34), "has changed in the archive"),
}
DAMAGES["a pipe"] = (lambda path: (path.unlink(), os.mkfifo(path)), "it is no file")
DAMAGES["another piece"] = (
    lambda path: path.write_bytes(next(one for one in path.parents[1].rglob("*") if one.is_file() and one != path).read_bytes()),
    "has changed in the archive",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_names_file_and_tensor_and_archiving_again_mends_it(model: Path, tmp_path: Path, damage: str) -> None:
    manifest, store = build_manifest(model), tmp_path / "a"
    whole = archive(model, manifest, str(store))
    change, words = DAMAGES[damage]
    change(piece_of(store, manifest, 3))
    with pytest.raises(DamagedArchiveError) as caught:
        restore(manifest.digest, str(store), tmp_path / "back")
    assert len(caught.value.problems) == 1 and caught.value.exit_code == 4
    assert "model.safetensors: tensor model.layers.3.mlp.up_proj.weight" in caught.value.what
    assert words in caught.value.what and "quantgov archive" in caught.value.fix
    assert not (tmp_path / "back").exists() and not list(tmp_path.glob(".restore-*"))
    mended = archive(model, manifest, str(store))
    assert (mended.new_pieces, mended.repaired_pieces) == (1, int(damage != "missing"))
    assert mended.stored_bytes < whole.stored_bytes / 5
    restore(manifest.digest, str(store), tmp_path / "back")


def test_every_damaged_file_is_named_at_once(model: Path, tmp_path: Path) -> None:
    manifest, store = build_manifest(model), tmp_path / "a"
    archive(model, manifest, str(store))
    for path in (store / "chunks").rglob("*"):
        if path.is_file():
            flip(path)
    with pytest.raises(DamagedArchiveError) as caught:
        restore(manifest.digest, str(store), tmp_path / "back")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["config.json", "model.safetensors"]
    assert "more of 7 pieces" in caught.value.problems[1]


@pytest.mark.parametrize("changed", [b"", b"{}", b"\xff\xfe", None])
def test_a_changed_manifest_is_tampering_and_mended(model: Path, tmp_path: Path, changed: bytes | None) -> None:
    manifest, store = build_manifest(model), tmp_path / "a"
    archive(model, manifest, str(store))
    (path,) = (store / "manifests").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"size": ', b'"size": 1') if changed is None else changed)
    with pytest.raises(TamperingError, match=r"archived manifests/.* has been changed"):
        restore(manifest.digest, str(store), tmp_path / "back")
    archive(model, manifest, str(store))
    restore(manifest.digest, str(store), tmp_path / "back")


def start(model: Path, store: Path, *, waits_at: float = 2.0, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(model), str(store), str(waits_at)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_killed_writer_leaves_nothing_wrong_and_the_next_goes_on(large: Path, tmp_path: Path, pieces: int) -> None:
    store, manifest = tmp_path / "a", build_manifest(large)
    # It waits where half is done: on a busy machine it could be through before the signal comes.
    writer = start(large, store, waits_at=0.5)
    assert writer.stdout is not None
    while len(list((store / "chunks").rglob("?" * 64))) < pieces:
        assert writer.poll() is None, writer.communicate()
        time.sleep(0.001)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL and not (store / "manifests").exists()
    (store / "writing" / "tmpleft" / "deeper").mkdir(parents=True, exist_ok=True)  # whatever else one may have left
    done = len(list((store / "chunks").rglob("?" * 64)))
    content = archive(large, manifest, str(store))
    assert (content.repaired_pieces, content.pieces) == (0, content.new_pieces + done)
    assert not list((store / "writing").iterdir())
    assert restore(manifest.digest, str(store), tmp_path / "back") == manifest


@pytest.mark.slow
def test_a_writer_at_work_keeps_its_half_written_files(
    model: Path, versions: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two at once: neither tidies the other's away."""
    store = tmp_path / "a"
    other = versions("one layer tuned")
    writers = [start(one, store) for one in (model, other, model, other)]
    said = [writer.communicate() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, said
    for number, one in enumerate((model, other)):
        restore(build_manifest(one).digest, str(store), tmp_path / f"back-{number}")
    archive(model, build_manifest(model), str(store))
    assert not list((store / "writing").iterdir())


def test_a_full_disk_loses_nothing(model: Path, tmp_path: Path, small_disk: Path) -> None:
    manifest = build_manifest(model)
    with pytest.raises(ArtifactError, match="cannot be written: No space left on device") as caught:
        archive(model, manifest, str(small_disk / "a"))
    assert "df -h" in caught.value.fix
    assert not list((small_disk / "a" / "writing").iterdir())
    kept = list((small_disk / "a" / "chunks").rglob("?" * 64))
    assert kept
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    content = archive(model, manifest, str(small_disk / "a"))
    assert content.pieces == content.new_pieces + len(kept)
    restore(manifest.digest, str(small_disk / "a"), tmp_path / "back")


def test_there_is_no_room_to_restore_into(model: Path, tmp_path: Path, small_disk: Path) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    with pytest.raises(ArtifactError, match="do not fit into") as caught:
        restore(manifest.digest, str(tmp_path / "a"), small_disk / "back")
    assert caught.value.exit_code == 2 and not list(small_disk.iterdir())


def test_files_that_may_not_grow_so_long_lose_nothing(model: Path, tmp_path: Path) -> None:
    """What a quota does, for every user; the limit is the process's own."""
    store, manifest = tmp_path / "a", build_manifest(model)
    writer = start(model, store, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    _, said = writer.communicate()
    assert writer.returncode == 1 and "cannot be written: File too large" in said and "Traceback" not in said
    assert not list((store / "writing").iterdir())
    archive(model, manifest, str(store))
    restore(manifest.digest, str(store), tmp_path / "back")


RESTORER = """
import os, signal, sys
from pathlib import Path
from mlflow_quantgov.evidence.measure.archive import restore
def report(words, done):
    if done >= 0.3:
        os.kill(os.getpid(), signal.SIGKILL)
restore(sys.argv[1], sys.argv[2], Path(sys.argv[3]), progress=report)
"""


def test_what_a_killed_restore_left_is_removed_by_the_next_and_nothing_else(large: Path, tmp_path: Path) -> None:
    manifest, store = build_manifest(large), str(tmp_path / "a")
    archive(large, manifest, store)
    target = tmp_path / "room" / "back"
    command = [sys.executable, "-c", RESTORER, manifest.digest, store, str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    (target.parent / ".restore-of-somebody").mkdir()
    assert any(left.rglob("*.safetensors")) and not target.exists()
    restore(manifest.digest, store, target)
    assert {one.name for one in target.parent.iterdir()} == {"back", ".restore-of-somebody"}
    assert build_manifest(target) == manifest


def test_a_list_of_pieces_that_is_damaged_beside_a_whole_file_is_mended(archived_before: Path, tmp_path: Path) -> None:
    """An archive that two versions of this package wrote has both; a restore reads the list."""
    store, digest = str(archived_before), f"sha256:{next((archived_before / 'manifests').iterdir()).stem}"
    manifest = restore(digest, store, tmp_path / "good")
    entry = manifest.files[0]
    record = archived_before / "files" / entry.sha256[:2] / f"{entry.sha256}.json"
    record.parent.mkdir(parents=True)
    record.touch()
    with pytest.raises(DamagedArchiveError, match="the list of its pieces has changed"):
        restore(digest, store, tmp_path / "back")
    archive(tmp_path / "good", manifest, store)
    assert restore(digest, store, tmp_path / "back") == manifest


def test_a_whole_file_that_never_ends_is_not_written_out(
    archived_before: Path, tmp_path: Path, small_disk: Path
) -> None:
    store, digest = str(archived_before), f"sha256:{next((archived_before / 'manifests').iterdir()).stem}"
    for blob in (archived_before / "blobs").rglob("?" * 64):
        os.truncate(blob, 1 << 33)
    with pytest.raises(DamagedArchiveError, match=r"has changed in the archive.*1 more file"):
        restore(digest, store, small_disk / "back")


def test_a_list_of_pieces_that_never_ends_names_its_file(model: Path, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, str(tmp_path / "a"))
    for record in (tmp_path / "a" / "files").rglob("*.json"):
        os.truncate(record, 1 << 33)
    with pytest.raises(DamagedArchiveError, match=r"^config\.json: the list of its pieces has changed"):
        restore(manifest.digest, str(tmp_path / "a"), tmp_path / "back")


def test_what_could_not_be_read_back_is_not_called_archived(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_RECORD", 400)
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be archived: the list of its pieces") as caught:
        archive(model, build_manifest(model), str(tmp_path / "a"))
    assert "shard" in caught.value.fix and not (tmp_path / "a" / "manifests").exists()


@pytest.mark.parametrize("name", ["n" * 300, "loop/a"])
def test_a_place_that_no_file_system_takes_is_one_line_and_no_damage(
    model: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    manifest = build_manifest(model)
    with pytest.raises(QuantgovError) as caught:
        archive(model, manifest, name)
    assert caught.value.exit_code == 2
    with pytest.raises(QuantgovError) as caught:
        restore(manifest.digest, name, tmp_path / "back")
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_opened_just_now_is_not_called_damaged(model: Path, tmp_path: Path) -> None:
    """Whoever has too many files open learns nothing about the archive, and must not write it anew."""
    manifest, store = build_manifest(model), str(tmp_path / "a")
    archive(model, manifest, store)
    place = LocalPlace(tmp_path / "a")
    name = f"manifests/{manifest.digest.removeprefix('sha256:')}.json"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(UnreachableError, match="cannot be read: Too many open files"):
            place.read(name, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert place.read(name, 1 << 20)
