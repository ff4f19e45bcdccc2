"""Graphs within graphs, made flat: one list of nodes, one table of tensors, every name unique."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow_quantgov.artifact.tensors.protobuf import Field
from mlflow_quantgov.artifact.tensors.types import Tensor, check_name, unsound


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    op: str
    domain: str
    """Empty for ONNX's own operations."""
    name: str
    inputs: tuple[str, ...]
    """Names of values; empty for an input that is left out."""
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The attributes that matter here, all of them whole numbers."""
    graphs: tuple[Graph, ...] = ()

    def number(self, name: str, default: int) -> int:
        """An attribute that is one number."""
        found = self.numbers.get(name)
        return found[0] if found else default

    def input(self, place: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.inputs[place] if 0 <= place < len(self.inputs) else ""


@dataclass
class Graph:
    """A graph as it stands in the file."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[Field] = field(default_factory=list)
    outputs: list[Field] = field(default_factory=list)

    def add_tensor(self, path: Path, tensor: Tensor, name: str | None = None) -> None:
        """Keep a tensor under its own name, or under the name of the value that it is.

        Raises:
            ArtifactError: The name cannot be written down, or stands twice.
        """
        named = tensor if name is None else replace(tensor, name=name)
        # `..` in a name leads nowhere: tensors are never files of their own here.
        check_name(path, named.name.replace("/", "."))
        if named.name in self.tensors:
            raise unsound(path, f"the tensor {named.name[:100]!r} stands twice")
        self.tensors[named.name] = named


@dataclass
class FlatGraph:
    """All nodes and tensors of a model."""

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def flatten(path: Path, graph: Graph, functions: Mapping[str, Graph]) -> FlatGraph:
    """One list of nodes; values of inner graphs and of functions get the name of their place in front.

    Raises:
        ArtifactError: An inner name is that of another value.
    """
    flat = FlatGraph()
    _add(path, flat, graph, (), "")
    for name, function in functions.items():
        _add(path, flat, function, (), f"{name}::")
    return flat


def _add(path: Path, flat: FlatGraph, graph: Graph, outer: tuple[dict[str, str], ...], prefix: str) -> None:
    """Add a graph; `outer` gives the unique names of what it sees from outside, the nearest graph first.

    Recursion goes as deep as graphs are nested, which the reader bounds.
    """
    own = {name: f"{prefix}{name}" for name in graph.tensors}
    for node in graph.nodes:
        own |= {name: f"{prefix}{name}" for name in node.outputs if name}
    scopes = (own, *outer)
    for name, tensor in graph.tensors.items():
        if own[name] in flat.tensors:
            raise unsound(path, f"the tensor {name[:100]!r} stands twice")
        flat.tensors[own[name]] = replace(tensor, name=own[name]) if prefix else tensor
    for place, node in enumerate(graph.nodes):
        inputs = tuple(_unique(name, scopes, prefix) for name in node.inputs)
        outputs = tuple(own.get(name, "") for name in node.outputs)
        flat.nodes.append(Node(node.op, node.domain, node.name, inputs, outputs, node.numbers))
        for index, inner in enumerate(node.graphs):
            _add(path, flat, inner, scopes, f"{prefix}{place}.{index}::")


def _unique(name: str, scopes: tuple[dict[str, str], ...], prefix: str) -> str:
    """Unique name of a value; one that nothing in sight makes is an input of the graph itself."""
    if not name:
        return ""
    return next((scope[name] for scope in scopes if name in scope), f"{prefix}{name}")
