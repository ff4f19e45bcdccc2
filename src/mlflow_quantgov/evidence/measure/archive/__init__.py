"""The archive of full-precision parents: files by digest, in pieces that versions share, coded without loss."""

from mlflow_quantgov.evidence.measure.archive.restoring import DamagedArchiveError, restore
from mlflow_quantgov.evidence.measure.archive.store import ArchiveStore, open_store
from mlflow_quantgov.evidence.measure.archive.writing import archive

__all__ = ["ArchiveStore", "DamagedArchiveError", "archive", "open_store", "restore"]
