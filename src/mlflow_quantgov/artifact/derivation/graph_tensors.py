"""Tensors of a graph under the parent's names: told by the graph, cut out of fused ones, or found by what they hold.

Exporters lose names, and optimizers join matrices. A matrix without a name is taken for the parent's matrix of the same
shape that it resembles: after rounding to 4 bit its cosine to the true one is 0.99, to 2 bit 0.8, to any other hardly more
than zero. Each of the parent's matrices is given away once. The comparison that follows does not know how a pair was
found, so a wrong pair can only refute.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mlflow_quantgov.artifact.dequantize import Block, Matrix
from mlflow_quantgov.artifact.dequantize.gguf import plus_one
from mlflow_quantgov.artifact.dequantize.interface import Floats
from mlflow_quantgov.artifact.derivation.fused import as_separate, joined_from, separate

OUTPUT = "lm_head.weight"
_OWN_OUTPUT = "embed_out.weight"
"""GPT-NeoX's name of an output matrix on file; newer versions of transformers call the module as others do."""
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight",
              "model.decoder.embed_tokens.weight", "transformer.word_embeddings.weight")  # fmt: skip
"""What an output matrix may share its numbers with, and then stand in the parent only once."""
_SANDWICH = "pre_feedforward_layernorm.weight"
MOST_COLUMNS = 1 << 20
"""Rows are the smallest piece that is read; the widest known model has 53,248 columns."""
_LIKE = 0.5
_SAME = 0.9999
"""Norms resemble each other; only the very one will do."""
_SAMPLED = 1024
_READ = 1 << 16
_MOST_ALIKE = 2048
"""Matrices of one shape that are compared each with each."""


@dataclass
class Aligned:
    """Both sides by the names of the parent."""

    child: dict[str, Matrix]
    parent: dict[str, Matrix]
    foreign: list[Matrix] = field(default_factory=list)
    """Matrices of the graph that are none of the parent's."""
    strange: list[Matrix] = field(default_factory=list)
    """Other constants that are none of the parent's, perhaps no weights at all, and what cannot be read."""

    def place(self, name: str, one: Matrix) -> None:
        """Put a tensor beside the parent's; a second copy stands beside the same one."""
        own = name if name not in self.child else one.name
        while own in self.child:
            own = f"{own} again"
        self.parent[own] = self.parent[name]
        self.child[own] = replace(one, name=own)


def align(child: dict[str, Matrix], parent: dict[str, Matrix]) -> Aligned:
    """Give a graph's tensors the parent's names; other containers stay as they are."""
    if all(one.claim is None for one in child.values()):
        return Aligned(child, parent)
    child = _unwrapped(child, parent)
    parent = as_separate(parent, {one.claim: one for one in child.values() if one.claim})
    share_output(parent)
    found, left = Aligned({}, parent), []
    for one in child.values():
        pieces = separate(one, parent)
        if one.claim in parent:
            found.place(one.claim, one)
        elif pieces:
            for name, piece in pieces:
                found.place(name, piece)
        else:
            left.append(one)
    _by_content(found, left)
    _left_out(found)
    _less_one(found)
    return found


def _unwrapped(child: dict[str, Matrix], parent: dict[str, Matrix]) -> dict[str, Matrix]:
    """A graph of a model that was traced as a part of another module, without the name that it had there."""
    claims = [one.claim for one in child.values() if one.claim]
    heads = Counter(head for head, _, rest in (claim.partition(".") for claim in claims) if rest in parent)
    if not heads:
        return child
    (head, count), *_ = heads.most_common(1)
    if count <= sum(claim in parent for claim in claims):
        return child
    return {
        name: replace(one, claim=one.claim.removeprefix(f"{head}.")) if one.claim else one
        for name, one in child.items()
    }


def is_shared(parent: dict[str, Matrix]) -> bool:
    """Whether the parent's output matrix is its embedding, number by number."""
    output = parent[OUTPUT]
    for name in EMBEDDINGS:
        one = parent.get(name)
        if one is output:
            return True
        if one is None or (one.rows, one.columns) != (output.rows, output.columns):
            continue
        if all(np.array_equal(one.block(*at).values, output.block(*at).values) for at in one.blocks()):
            return True
    return False


def share_output(parent: dict[str, Matrix]) -> None:
    """Name an output matrix that is the embedding."""
    shared = next((name for name in EMBEDDINGS if name in parent), None)
    if shared is not None and OUTPUT not in parent and _OWN_OUTPUT not in parent:
        parent[OUTPUT] = parent[shared]


def _by_content(found: Aligned, left: list[Matrix]) -> None:
    """Match what the graph gives no name with what of the parent is left, by shape and then by numbers."""
    groups: dict[tuple[int, int], tuple[list[Matrix], list[Matrix]]] = defaultdict(lambda: ([], []))
    for one in left:
        groups[one.rows, one.columns][0].append(one)
    for theirs in _not_given(found):
        if (theirs.rows, theirs.columns) in groups:
            groups[theirs.rows, theirs.columns][1].append(theirs)
    for (rows, columns), (ours, candidates) in groups.items():
        if max(len(ours), len(candidates)) > _MOST_ALIKE:
            problem = f"more than {_MOST_ALIKE:,} tensors of its shape have no name"
            found.strange += [replace(one, problem=problem) for one in ours]
            continue
        is_matrix = rows > 1 and columns > 1
        pairs = _resembling(ours, candidates, _LIKE if is_matrix else _SAME)
        for place, one in enumerate(ours):
            if place in pairs:
                name = candidates[pairs[place]].name
                for part, piece in separate(replace(one, claim=name), found.parent) or [(name, one)]:
                    found.place(part, piece)
            elif is_matrix and one.is_weight and one.problem is None:
                found.foreign.append(one)
            else:
                found.strange.append(one)


def _not_given(found: Aligned) -> Iterator[Matrix]:
    """Tensors of the parent that the graph did not name, and those that it may have joined."""
    for name, one in found.parent.items():
        if name in found.child or not _is_readable(one):
            continue
        yield replace(one, name=name)
        yield from joined_from(name, found.parent, found.child)


def _resembling(ours: list[Matrix], theirs: list[Matrix], least: float) -> dict[int, int]:
    """Best partner of each, every one given away once; nothing for what resembles none."""
    readable = [place for place, one in enumerate(ours) if _is_readable(one)]
    if not readable or not theirs:
        return {}
    alike = np.stack([_sample(ours[place]) for place in readable]) @ np.stack([_sample(one) for one in theirs]).T
    candidates = np.argwhere(alike > least)
    order = np.argsort(-alike[candidates[:, 0], candidates[:, 1]], kind="stable")
    pairs: dict[int, int] = {}
    given: set[int] = set()
    for mine, other in candidates[order].tolist():
        if readable[mine] not in pairs and other not in given:
            pairs[readable[mine]] = other
            given.add(other)
    return pairs


def _is_readable(one: Matrix) -> bool:
    """Whether a row of it can be read without much memory."""
    return one.problem is None and one.rows > 0 and 0 < one.columns <= MOST_COLUMNS


def _sample(one: Matrix) -> Floats:
    """Some numbers out of the middle, scaled to a length of one: [1024]."""
    rows = min(one.rows, max(1, _READ // one.columns))
    first = (one.rows - rows) // 2
    values = one.block(first, first + rows).values.reshape(-1)
    chosen = np.zeros(_SAMPLED, dtype=np.float32)
    picked = np.nan_to_num(values[:: max(1, len(values) // _SAMPLED)][:_SAMPLED])
    chosen[: len(picked)] = picked
    return chosen / max(float(np.linalg.norm(chosen)), 1e-30)


def _left_out(found: Aligned) -> None:
    """Norms of ones and biases of zeros change nothing, and exporters leave them out."""
    for name, theirs in found.parent.items():
        neutral = 1.0 if name.endswith("norm.weight") else 0.0 if name.endswith(".bias") else None
        if name in found.child or neutral is None or theirs.rows != 1 or not _is_readable(theirs):
            continue
        if (theirs.block(0, 1).values == neutral).all():
            found.child[name] = Matrix(name, theirs.shape, "left out", (), _constant(neutral, theirs.columns), claim="")


def _constant(value: float, columns: int) -> Callable[[int, int], Block]:
    return lambda start, stop: Block(np.full((stop - start, columns), value, dtype=np.float32))


def _less_one(found: Aligned) -> None:
    """Norms of Gemma, which multiplies with one plus the norm, where the graph holds the sum."""
    if not any(name.endswith(_SANDWICH) for name in found.parent):
        return
    for name, one in found.child.items():
        theirs = found.parent.get(name, one)
        if not name.endswith("norm.weight") or one.rows != 1 or one.bits is not None or not _is_readable(one):
            continue
        if theirs.columns != one.columns or theirs.rows != 1:
            continue
        if float(np.median(one.block(0, 1).values - theirs.block(0, 1).values)) > 0.5:
            found.child[name] = plus_one(one)
