"""Stored codes back to numbers: every weight of an artifact as float32 row blocks, with its place on the grid."""

from mlflow_quantgov.artifact.dequantize.interface import Block, Matrix
from mlflow_quantgov.artifact.dequantize.registry import matrices

__all__ = ["Block", "Matrix", "matrices"]
