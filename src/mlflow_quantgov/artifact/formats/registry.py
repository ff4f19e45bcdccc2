"""Which reader reads an artifact."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_quantgov.artifact.formats.adapter import Adapter
from mlflow_quantgov.artifact.formats.auto_round import AutoRound
from mlflow_quantgov.artifact.formats.awq import Awq
from mlflow_quantgov.artifact.formats.bitsandbytes import BitsAndBytes
from mlflow_quantgov.artifact.formats.compressed_tensors import CompressedTensors
from mlflow_quantgov.artifact.formats.fp8 import Fp8, Nvfp4
from mlflow_quantgov.artifact.formats.full_precision import FullPrecision
from mlflow_quantgov.artifact.formats.gguf import Gguf
from mlflow_quantgov.artifact.formats.gptq import Gptq
from mlflow_quantgov.artifact.formats.hqq import Hqq
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.mxfp4 import Mxfp4
from mlflow_quantgov.artifact.formats.onnx import Onnx
from mlflow_quantgov.artifact.formats.openvino import OpenVino
from mlflow_quantgov.artifact.formats.quanto import Quanto
from mlflow_quantgov.artifact.formats.side_configs import check_agreement
from mlflow_quantgov.artifact.formats.torchao import TorchAo
from mlflow_quantgov.artifact.formats.unread import format_of_tensors, is_unread_claim, only_cache, unread
from mlflow_quantgov.artifact.plugins import entry_points
from mlflow_quantgov.errors import ArtifactError, UsageError

ENTRY_POINTS = "mlflow_quantgov.formats"
# AutoRound packs as others do, so it is asked before them; float8 last, as others store some of it too.
QUANTIZED: tuple[Format, ...] = (
    Gguf(), Onnx(), OpenVino(), BitsAndBytes(), TorchAo(), Quanto(), Hqq(), Mxfp4(), AutoRound(), CompressedTensors(), Gptq(), Awq(),
    Nvfp4(), Fp8(),
)  # fmt: skip
GRAPHS = frozenset({Onnx.name, OpenVino.name})


def reader_of(files: ArtifactFiles) -> Format:
    """The reader whose container the tensors are of; full precision is what is left when nothing else fits.

    Raises:
        ArtifactError: A config claims another format than the tensors have, or two configs contradict each other.
        UnknownFormatError: A format that no reader knows; its name is given.
        UsageError: A third party's reader cannot be loaded.
    """
    adapter = Adapter()
    if adapter.detect(files):
        return adapter
    claimed = files.claimed_method
    for reader in QUANTIZED:
        graph = reader.name in GRAPHS
        if reader.detect(files) and (graph or not is_unread_claim(claimed)):
            # A graph says itself how it computes; the config beside it may be that of what it was made from.
            if not graph:
                check_agreement(files)
            if claimed is not None and not graph and claimed not in reader.methods:
                raise files.contradiction("The config", f"the format {claimed}", f"the format {reader.name}")
            return reader
    for reader in _third_party():
        if reader.detect(files):
            return reader
    if is_unread_claim(claimed):
        raise unread(files, str(claimed))
    last = FullPrecision()
    if last.detect(files):
        return last
    raise _unfulfilled(files, claimed)


def _unfulfilled(files: ArtifactFiles, claimed: str | None) -> ArtifactError:
    """The config claims a quantization that no reader found in the tensors."""
    known = {method for reader in QUANTIZED for method in reader.methods}
    found = format_of_tensors(files.tensors)
    if found:
        return unread(files, found)
    if claimed is not None and claimed not in known:
        return unread(files, str(claimed))
    if cache := only_cache(files):
        return cache
    if not files.tensors:
        return unread(files, "empty: it holds no tensors, of a kind")
    return files.contradiction("The config", f"the format {claimed or 'of a quantizer'}", "no matrix packed that way")


def _third_party() -> Iterator[Format]:
    for point in entry_points(ENTRY_POINTS):
        try:
            reader = point.load()()
        except Exception as error:
            raise UsageError(
                f"The format reader {point.name!r} ({point.value}) cannot be loaded: {error}.",
                why="A model of its format would be taken for something else.",
                fix=f"upgrade or uninstall the package that brings {point.name!r}",
            ) from error
        if isinstance(reader, Format):
            yield reader
