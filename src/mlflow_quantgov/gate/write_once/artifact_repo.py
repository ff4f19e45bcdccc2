"""Write-once artifacts: every artifact repository of a gated server asks the guard before it writes.

Each class is given a subclass that overrides the methods which write, so that what MLflow asks of a repository (which
mixins it has, where its files lie) is answered as before.
"""

from __future__ import annotations

import asyncio
import functools
import os
import posixpath
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED, PERMISSION_DENIED
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from mlflow.tracing.otel.otel_archival import TRACE_ARCHIVAL_FILENAME
from mlflow.tracing.utils.artifact_utils import TRACE_DATA_FILE_NAME

from mlflow_quantgov.gate.write_once.write_guard import WriteGuard

# Their part URLs can write parts and nothing else. Azure's can write the whole blob, for an hour after it was judged.
_SAFE_PARTS = (S3ArtifactRepository, GCSArtifactRepository, HttpArtifactRepository)
# What clients look for to send the file in one piece instead.
_NO_MULTIPART = "Multipart upload is not supported for the current artifact repository"
_MOST_DRAINED = 1 << 30
_CHUNK = 1 << 20

# Mixed into many classes, each with methods of its own; for the type checker it is of any of them.
if TYPE_CHECKING:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    class _Base(S3ArtifactRepository, LocalArtifactRepository):
        """Every kind of repository at once."""

else:
    _Base = object


def guard_repositories(guard: WriteGuard) -> None:
    """Put the guard in front of every artifact repository that this process will make.

    Raises:
        RuntimeError: MLflow does not use what was put there.
    """
    registry = cast(dict[str, Any], get_registered_artifact_repositories())
    for scheme, make in list(registry.items()):
        registry[scheme] = _Guarded(make.make if isinstance(make, _Guarded) else make, guard)
    if not is_guarded():
        raise RuntimeError("this MLflow keeps its artifact repositories elsewhere; their files would not be write-once")


def is_guarded() -> bool:
    """Whether every artifact repository that this process makes asks the guard."""
    return all(isinstance(make, _Guarded) for make in get_registered_artifact_repositories().values())


class _Guarded:
    """Makes a repository as before, and puts the guard in front of it."""

    def __init__(self, make: Callable[..., Any], guard: WriteGuard) -> None:
        self.make, self._guard = make, guard

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return guarded(self.make(*args, **kwargs), self._guard)


def guarded(repository: Any, guard: WriteGuard) -> Any:
    """The same repository, asking before it writes."""
    repository.__class__ = _guarded_class(cast(Any, type(repository)))
    repository._quantgov = guard
    return repository


@functools.cache
def _guarded_class(kind: Any) -> Any:
    if issubclass(kind, WriteOnce):
        return kind
    # A plugin's repository may make another one for a workspace; MLflow looks whether it has this method.
    more = {"for_workspace": _for_workspace} if hasattr(kind, "for_workspace") else {}
    return type(f"WriteOnce{kind.__name__}", (WriteOnce, kind), more)


def _for_workspace(self: Any, *args: Any, **kwargs: Any) -> Any:
    return guarded(super(type(self), self).for_workspace(*args, **kwargs), self._quantgov)


class WriteOnce(_Base):
    """The methods of a repository that write; mixed in before its own class."""

    _quantgov: WriteGuard

    def log_artifact(self, local_file: Any, artifact_path: str | None = None) -> Any:
        """Guarded: one file."""
        with self._quantgov.writing(self, {_join(artifact_path, local_file): Path(local_file)}):
            return super().log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: Any, artifact_path: str | None = None) -> Any:
        """Guarded: all files of a folder, or none."""
        root = Path(local_dir)
        files = {
            posixpath.join(artifact_path or "", path.relative_to(root).as_posix()): path
            for path in root.rglob("*")
            if not path.is_dir()
        }
        with self._quantgov.writing(self, files or {artifact_path or "": None}):
            return super().log_artifacts(local_dir, artifact_path)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> Any:
        """Guarded when the stream begins, and again when it has ended: a version may have been registered meanwhile."""
        target = _join(artifact_path, artifact_file_name)
        try:
            limit = self._quantgov.most_bytes(self, target)
        except MlflowException:
            _drain(stream)
            raise
        if limit is not None:
            with tempfile.TemporaryDirectory(prefix="quantgov-addition-") as scratch:
                path = Path(scratch) / posixpath.basename(target)
                _save(stream, path, limit)
                return self.log_artifact(str(path), artifact_path)
        with ExitStack() as held:
            ended = _Ended(lambda: self._quantgov.writing(self, {target: None}), held)
            checked = cast(BinaryIO, _Stream(stream, ended))
            return super().log_artifact_from_stream(checked, artifact_file_name, artifact_path)

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> Any:
        """Guarded when the stream begins, and again when it has ended."""
        target = _join(artifact_path, artifact_file_name)
        try:
            limit = await asyncio.to_thread(self._quantgov.most_bytes, self, target)
        except MlflowException:
            await _drain_async(chunks)
            raise
        if limit is not None:
            with tempfile.TemporaryDirectory(prefix="quantgov-addition-") as scratch:
                path = Path(scratch) / posixpath.basename(target)
                await _save_async(chunks, path, limit)
                return await asyncio.to_thread(self.log_artifact, str(path), artifact_path)
        held = ExitStack()
        try:
            ended = _Ended(lambda: self._quantgov.writing(self, {target: None}), held)
            return await super().log_artifact_from_async_stream(
                _checked(chunks, ended), artifact_file_name, artifact_path
            )
        finally:
            await asyncio.to_thread(held.close)

    def delete_artifacts(self, artifact_path: str | None = None) -> Any:
        """Guarded: a file, or a folder with everything in it."""
        with self._quantgov.deleting(self, artifact_path):
            return super().delete_artifacts(artifact_path)

    def create_multipart_upload(self, local_file: str, num_parts: int = 1, artifact_path: str | None = None) -> Any:
        """Guarded; refused where the URLs that are handed out could write more than parts."""
        if not isinstance(self, _SAFE_PARTS):
            raise MlflowException(_NO_MULTIPART, error_code=NOT_IMPLEMENTED)
        with self._quantgov.writing(self, {_join(artifact_path, local_file): None}):
            return super().create_multipart_upload(local_file, num_parts, artifact_path)

    def complete_multipart_upload(
        self, local_file: str, upload_id: str, parts: Any = None, artifact_path: str | None = None
    ) -> Any:
        """Guarded: only now do the parts become a file."""
        with self._quantgov.writing(self, {_join(artifact_path, local_file): None}):
            return super().complete_multipart_upload(local_file, upload_id, parts, artifact_path)

    def create_presigned_upload_url(self, artifact_path: str, expiration: int = 900) -> Any:
        """Refused: what is uploaded by such a URL passes by the server, also after its version was registered."""
        raise MlflowException(
            "quantgov refused: a presigned URL writes past this server until it expires, so the files of a version that is "
            "registered meanwhile would not stay as they are. Fix: log the artifact through the server, "
            "with mlflow.log_artifact",
            error_code=PERMISSION_DENIED,
        )

    # Some repositories write these without `log_artifact`; a trace's folder may have been put into a model's.

    def upload_trace_data(self, trace_data: str) -> Any:
        """Guarded: the spans of a trace."""
        with self._quantgov.writing(self, {TRACE_DATA_FILE_NAME: None}):
            return super().upload_trace_data(trace_data)

    def upload_archived_trace_data(self, trace_data: Any) -> Any:
        """Guarded: the spans of a trace that is put away."""
        with self._quantgov.writing(self, {TRACE_ARCHIVAL_FILENAME: None}):
            return super().upload_archived_trace_data(trace_data)

    def upload_archived_trace_data_bytes(self, data: bytes) -> Any:
        """Guarded: the same, as bytes."""
        with self._quantgov.writing(self, {TRACE_ARCHIVAL_FILENAME: None}):
            return super().upload_archived_trace_data_bytes(data)

    def upload_attachment(self, attachment_id: str, content_bytes: bytes) -> Any:
        """Guarded: what was attached to a trace."""
        with self._quantgov.writing(self, {posixpath.join("attachments", attachment_id): None}):
            return super().upload_attachment(attachment_id, content_bytes)


class _Ended:
    """Enters the guard once, when a stream has ended; what is entered there is left with the stack."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]], held: ExitStack) -> None:
        self._make, self._held, self._done = make, held, False

    def __call__(self) -> None:
        if not self._done:
            self._held.enter_context(self._make())
            self._done = True


class _Stream:
    """A stream that asks the guard before it says that it has ended."""

    def __init__(self, stream: BinaryIO, ended: _Ended) -> None:
        self._stream, self._ended = stream, ended

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none where the stream has ended and the file may be published."""
        data = self._stream.read(size)
        if not data or size < 0:
            self._ended()
        return data


async def _checked(chunks: AsyncIterable[bytes], ended: _Ended) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk
    await asyncio.to_thread(ended)


def _join(folder: str | None, file: Any) -> str:
    return posixpath.join(folder or "", os.path.basename(str(file)))  # noqa: PTH119  (as the repositories do it)


def _save(stream: BinaryIO, path: Path, limit: int) -> None:
    """Keep what may be an addition; one byte more than is allowed is enough to refuse it."""
    with path.open("wb") as file:
        while file.tell() <= limit and (chunk := stream.read(_CHUNK)):
            file.write(chunk)


async def _save_async(chunks: AsyncIterable[bytes], path: Path, limit: int) -> None:
    with path.open("wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
            if file.tell() > limit:
                return


def _drain(stream: BinaryIO) -> None:
    """Read what a client still sends, or it would see a broken connection and not the reason."""
    read = 0
    while read < _MOST_DRAINED and (chunk := stream.read(_CHUNK)):
        read += len(chunk)


async def _drain_async(chunks: AsyncIterable[bytes]) -> None:
    read = 0
    async for chunk in chunks:
        read += len(chunk)
        if read > _MOST_DRAINED:
            return
