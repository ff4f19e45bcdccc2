"""Matrices that one side joined and the other holds apart: queries, keys and values; gate and up projection."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace

import numpy as np

from mlflow_quantgov.artifact.dequantize import Block, Matrix

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def as_separate(parent: dict[str, Matrix], claimed: dict[str, Matrix]) -> dict[str, Matrix]:
    """The parent with its fused matrices cut where the graph holds them apart."""
    found = dict(parent)
    for name, one in parent.items():
        for names in _parts_of(name):
            if name in claimed or any(part not in claimed for part in names):
                continue
            sizes = [claimed[part].shape[0] for part in names]
            if sum(sizes) == one.shape[0]:
                del found[name]
                found |= dict(_cut(one, names, sizes))
    return found


def _parts_of(name: str) -> Iterator[list[str]]:
    """Names of the tensors that one of this name is joined of."""
    for fused, parts in _FUSED.items():
        if f".{fused}." in name:
            yield [name.replace(f".{fused}.", f".{part}.") for part in parts]


def separate(one: Matrix, parent: dict[str, Matrix]) -> list[tuple[str, Matrix]]:
    """A fused matrix of the graph as the ones that the parent has; the parent's shapes say where to cut."""
    for names in _parts_of(one.claim or ""):
        if any(name not in parent for name in names):
            continue
        sizes = [parent[name].shape[0] for name in names]
        if sum(sizes) == one.shape[0]:
            return list(_cut(one, names, sizes))
    return []


def _cut(one: Matrix, names: list[str], sizes: list[int]) -> Iterator[tuple[str, Matrix]]:
    """Rows of a matrix, or numbers of a vector, as matrices of their own."""
    start = 0
    for name, size in zip(names, sizes, strict=True):
        own = f"{name} ({one.name})"
        yield name, replace(one, name=own, shape=(size, *one.shape[1:]), read=_part(one, start, size))
        start += size


def _part(one: Matrix, first: int, size: int) -> Callable[[int, int], Block]:
    if len(one.shape) > 1:
        return lambda start, stop: one.read(first + start, first + stop)

    def numbers(start: int, stop: int) -> Block:
        return Block(one.read(start, stop).values[:, first : first + size])

    return numbers


def joined_from(name: str, tensors: Mapping[str, Matrix], without: Container[str]) -> Iterator[Matrix]:
    """Matrices that may have been joined of this one, if it is the first, and others that are not taken yet."""
    for fused, parts in _FUSED.items():
        if f".{parts[0]}." not in name:
            continue
        names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
        pieces = [tensors[part] for part in names if part in tensors and part not in without]
        whole = len(pieces) == len(parts) and len({piece.columns for piece in pieces}) == 1
        if whole and all(len(piece.shape) == 2 for piece in pieces):
            yield _joined(name.replace(f".{parts[0]}.", f".{fused}."), pieces)


def _joined(name: str, pieces: list[Matrix]) -> Matrix:
    """The rows of several matrices in one."""

    def read(start: int, stop: int) -> Block:
        found, first = [], 0
        for piece in pieces:
            begin, end = max(start - first, 0), min(stop - first, piece.rows)
            if begin < end:
                found.append(piece.block(begin, end).values)
            first += piece.rows
        return Block(np.concatenate(found))

    shape = (sum(piece.rows for piece in pieces), pieces[0].columns)
    return Matrix(name, shape, pieces[0].kind, (), read)
