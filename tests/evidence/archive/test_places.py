"""Archives at URLs: a real S3 server over HTTP, and fsspec's own stores."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import MissingExtraError, UnreachableError, UsageError
from mlflow_quantgov.evidence.measure.archive import DamagedArchiveError, archive, open_store, restore
from mlflow_quantgov.evidence.measure.archive.remote import RemotePlace

SECRET = "AKIA-not-to-be-printed"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on an S3 server of its own (moto), reached over HTTP as any other."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", SECRET)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield f"http://{host}:{port}"
    server.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # they know the address, and would outlive the server


@pytest.fixture(params=["s3", "memory", "local"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty archive at a URL."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket/{uuid.uuid4()}/archive"
    return f"memory://{uuid.uuid4()}/archive" if request.param == "memory" else f"local://{tmp_path}/far"


def store_of(url: str) -> tuple[object, str]:
    return fsspec.url_to_fs(url)  # type: ignore[no-any-return]


def test_an_archive_at_a_url_gives_the_same_bytes(model: Path, url: str, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    first = archive(model, manifest, url)
    assert first.store == url and first.new_pieces == first.pieces
    assert archive(model, manifest, url).stored_bytes == 0
    restore(manifest.digest, url, tmp_path / "back")
    assert build_manifest(tmp_path / "back") == manifest


def test_damage_at_a_url_is_named_and_mended(model: Path, url: str, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, url)
    fs, root = store_of(url)
    names = sorted(fs.find(f"{root}/chunks"), key=fs.size)  # type: ignore[attr-defined]
    data = bytearray(fs.cat_file(names[-1]))  # type: ignore[attr-defined]
    data[-5] ^= 1
    fs.pipe_file(names[-1], bytes(data))  # type: ignore[attr-defined]
    fs.rm_file(names[-2])  # type: ignore[attr-defined]
    with pytest.raises(DamagedArchiveError, match=r"model\.safetensors: tensor .*1 more of 7 pieces"):
        restore(manifest.digest, url, tmp_path / "back")
    mended = archive(model, manifest, url)
    assert (mended.new_pieces, mended.repaired_pieces) == (2, 1)
    restore(manifest.digest, url, tmp_path / "back")


def test_an_archive_of_whole_files_may_lie_at_a_url(archived_before: Path, s3: str, tmp_path: Path) -> None:
    url = f"s3://bucket/{uuid.uuid4()}"
    fs, root = store_of(url)
    for path in archived_before.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/{path.relative_to(archived_before)}", path.read_bytes())  # type: ignore[attr-defined]
    digest = f"sha256:{next((archived_before / 'manifests').iterdir()).stem}"
    manifest = restore(digest, url, tmp_path / "back")
    assert archive(tmp_path / "back", manifest, url).new_pieces == 0


@pytest.mark.parametrize("what", ["archive", "restore"])
def test_a_bucket_that_is_not_there_is_one_line(model: Path, s3: str, tmp_path: Path, what: str) -> None:
    manifest = build_manifest(model)
    with pytest.raises((UnreachableError, UsageError)) as caught:
        if what == "archive":
            archive(model, manifest, "s3://no-such-bucket/a")
        else:
            restore(manifest.digest, "s3://no-such-bucket/a", tmp_path / "back")
    assert "s3://no-such-bucket/a" in caught.value.what and SECRET not in caught.value.one_line()
    assert "\n" not in caught.value.one_line()


def test_a_server_that_does_not_answer_is_no_damage(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnreachableError) as caught:
        archive(model, build_manifest(model), f"webhdfs://user:{SECRET}@127.0.0.1:9/archive")
    assert SECRET not in caught.value.one_line() and caught.value.exit_code == 2


def test_credentials_in_a_url_are_kept_out_of_statements_and_errors() -> None:
    store = open_store(f"memory://{SECRET}:{SECRET}@host/path?token={SECRET}#{SECRET}")
    assert store.url == "memory://host/path"
    assert SECRET not in store.damaged("x").one_line()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nonsense://x/y", "No installed package reaches nonsense://"),
        ("simplecache::s3://bucket/x", "not a chain"),
        ("", "No archive is named"),
    ],
)
def test_a_place_that_is_none_is_one_line(where: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_store(where)


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed here")
def test_a_store_without_its_package_names_what_to_install() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("gs://bucket/x")
    assert caught.value.fix == "pip install gcsfs"


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError) as caught:
        open_store("s3://bucket/x")
    assert caught.value.fix == "pip install 'mlflow-quantgov[remote]'"


def test_a_folder_may_be_named_as_a_url(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    manifest = build_manifest(model)
    content = archive(model, manifest, str(folder))
    assert content.store == folder.as_uri() and "%20" in content.store
    restore(manifest.digest, content.store, tmp_path / "back")


class OneConnection(LocalFileSystem):  # type: ignore[misc]
    """A store whose client is confused by two threads, as those of FTP and SFTP are; writing there may break off."""

    protocol = "oneconnection"
    busy = threading.Lock()
    breaks_off = ""

    def cat_file(self, path: str, **options: Any) -> bytes:
        if not self.busy.acquire(blocking=False):
            raise OSError("the answer to somebody else's question")
        try:
            time.sleep(0.001)
            return bytes(super().cat_file(path, **options))
        finally:
            self.busy.release()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if self.breaks_off and self.breaks_off in path:
            super().pipe_file(path, value[: len(value) // 2], **options)
            raise ConnectionResetError("the connection was closed")
        super().pipe_file(path, value, **options)


@pytest.fixture
def one_connection(tmp_path: Path) -> Iterator[str]:
    """An empty archive in such a store."""
    fsspec.register_implementation("oneconnection", OneConnection, clobber=True)
    yield f"oneconnection://{tmp_path}/far"
    OneConnection.breaks_off = ""


def test_a_store_with_one_connection_is_asked_one_thing_at_a_time(
    model: Path, one_connection: str, tmp_path: Path
) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, one_connection)
    assert archive(model, manifest, one_connection).stored_bytes == 0
    restore(manifest.digest, one_connection, tmp_path / "back")


@pytest.mark.parametrize("name", ["manifests/", "files/", "chunks/"])
def test_writing_that_breaks_off_takes_nothing_away_and_is_mended(
    model: Path, one_connection: str, tmp_path: Path, name: str
) -> None:
    """Where a store does not write in one step, what is there and sound is not written again."""
    manifest = build_manifest(model)
    OneConnection.breaks_off = name
    with pytest.raises(UnreachableError, match="the connection was closed"):
        archive(model, manifest, one_connection)
    OneConnection.breaks_off = ""
    archive(model, manifest, one_connection)
    OneConnection.breaks_off = name
    archive(model, manifest, one_connection)
    restore(manifest.digest, one_connection, tmp_path / "back")


def test_a_chunk_that_never_ends_is_not_read_to_its_end(model: Path, tmp_path: Path) -> None:
    url, manifest = f"local://{tmp_path}/far", build_manifest(model)
    archive(model, manifest, url)
    chunk = max((tmp_path / "far" / "chunks").rglob("?" * 64), key=lambda one: one.stat().st_size)
    os.truncate(chunk, 300_000_000)
    tracemalloc.start()
    with pytest.raises(DamagedArchiveError, match="longer than it can be"):
        restore(manifest.digest, url, tmp_path / "back")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 150_000_000


def test_an_empty_chunk_at_a_url_is_named_and_mended(model: Path, url: str, tmp_path: Path) -> None:
    manifest = build_manifest(model)
    archive(model, manifest, url)
    fs, root = store_of(url)
    fs.pipe_file(max(fs.find(f"{root}/chunks"), key=fs.size), b"")  # type: ignore[attr-defined]
    with pytest.raises(DamagedArchiveError, match=r"model\.safetensors: tensor .* has changed in the archive"):
        restore(manifest.digest, url, tmp_path / "back")
    assert archive(model, manifest, url).repaired_pieces == 1
    restore(manifest.digest, url, tmp_path / "back")


def test_a_token_in_a_url_is_kept_out_of_errors_of_its_store() -> None:
    url = f"memory://me:p%40ss@host/archive?token={SECRET}"
    error = RemotePlace(url)._failed(OSError(f"403 for {url}, who sent p@ss"), "read")
    assert SECRET not in error.one_line() and "p%40ss" not in error.one_line() and "p@ss" not in error.one_line()
    assert "403 for memory://me:***@host/archive?***" in error.what  # a name is no secret, and may stand in any word
