"""compressed-tensors, as llm-compressor writes it: `weight_packed` or a narrow `weight`, with `weight_scale`.

Source: compressed_tensors.compressors. Since version 0.20 packed codes cross word borders; before, each 32-bit word
held `32 // bits` codes. The two differ for 3, 5, 6 and 7 bit only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mlflow_quantgov.artifact.formats.assemble import Claims, Layers, assemble, broken_layer, used_bits
from mlflow_quantgov.artifact.formats.compressed_scheme import check_scheme
from mlflow_quantgov.artifact.formats.compressed_sparse import SPARSE_PARTS, add_sparse
from mlflow_quantgov.artifact.formats.gptq import producer_of
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles, Format
from mlflow_quantgov.artifact.formats.packing import constant_words, highest_bit
from mlflow_quantgov.artifact.formats.scaled import CACHE_ZEROS, block_sides
from mlflow_quantgov.artifact.quantization import Inspection, LayerQuantization
from mlflow_quantgov.artifact.structure import stored_twice
from mlflow_quantgov.artifact.tensors import Tensor

_WORD = 32
_SAMPLED_WORDS = 1 << 18
_LARGEST_GROUP = 2**31
_PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
          "weight_global_scale", "input_scale", "input_zero_point", "input_global_scale", "output_scale",
          "output_zero_point")  # fmt: skip
_CACHE_PARTS = (".k_scale", ".v_scale", ".q_scale", *CACHE_ZEROS)
_STATIC_PARTS = (".input_scale", ".input_global_scale", ".output_scale", ".k_scale", ".v_scale")
_FLOAT8 = {"F8_E4M3", "F8_E5M2"}


@dataclass(frozen=True)
class Parts:
    """The stored tensors of one matrix."""

    stem: str
    tensors: dict[str, Tensor]
    """By what stands after the stem."""

    def get(self, part: str) -> Tensor | None:
        """One of them, if it is there."""
        return self.tensors.get(part)


class CompressedTensors(Format):
    """Packed integers, int8, float8, packed float4 and float6."""

    name = "compressed-tensors"

    @property
    def methods(self) -> frozenset[str]:
        """Values of `quant_method`, the older spelling included."""
        return frozenset({"compressed-tensors", "compressed_tensors"})

    def detect(self, files: ArtifactFiles) -> bool:
        """A scale beside a packed or int8 matrix; beside float8 only where the config agrees, as others do that too."""
        claimed = files.claimed_method in self.methods
        for name in files.tensors:
            if name.endswith(".weight_packed") or (claimed and name.endswith(SPARSE_PARTS)):
                return True
            if name.endswith(".weight_scale"):
                weight = files.tensors.get(name.removesuffix("_scale"))
                if weight is not None and (weight.dtype == "I8" or (claimed and weight.dtype in _FLOAT8)):
                    return True
        return False

    def read(self, files: ArtifactFiles) -> Inspection:
        """See `Format`."""
        config = files.quantization_config
        schemes = _schemes(config)
        claimed, sizes = {bits for scheme in schemes if (bits := _bits(scheme))}, _sizes(schemes)
        layers, parts = Layers(), []
        for name in sorted(files.tensors):
            if name.endswith(".weight_scale") and f"{name.removesuffix('.weight_scale')}.bitmask" not in files.tensors:
                one = gather(files, name.removesuffix(".weight_scale"))
                layer, granularity = read_layer(files, one, claimed, sizes)
                layers.add(layer, [tensor.name for tensor in one.tensors.values()], granularity)
                parts.append(one)
        dense = tuple(layers.found)
        add_sparse(files, layers)
        layers.used.update(name for name in files.tensors if name.endswith(_CACHE_PARTS))
        _check_widths(files, layers, claimed)
        _check_order(files, schemes, parts)
        shifted = [has_offset(one, layer) for one, layer in zip(parts, dense, strict=True)]
        _check_kinds(files, schemes, dense, parts, shifted)
        check_scheme(files, schemes, zip(dense, layers.granularities, parts, strict=False))
        return assemble(
            files,
            layers,
            format=self.name,
            # Rounding, GPTQ and AWQ leave the same tensors behind.
            method=None,
            symmetric=not any(shifted),
            producer=f"compressed-tensors {config['version']}" if config.get("version") else producer_of(files),
            calibration_required=True if any(name.endswith(_STATIC_PARTS) for name in files.tensors) else None,
            activation_bits=_activation_bits(config),
            kv_cache_bits=_bits(config.get("kv_cache_scheme")),
            desc_act=any(_reordered(one) for one in parts),
            claims=Claims(group_size=_claimed_groups(schemes)),
        )


def gather(files: ArtifactFiles, stem: str) -> Parts:
    """The stored tensors of one matrix."""
    named = ((part, files.tensors.get(f"{stem}.{part}")) for part in _PARTS)
    return Parts(stem, {part: tensor for part, tensor in named if tensor is not None})


def read_layer(
    files: ArtifactFiles, one: Parts, claimed: set[int], sizes: frozenset[int] = frozenset()
) -> tuple[LayerQuantization, str]:
    """Width, shape and granularity of one matrix.

    Args:
        files: The artifact.
        one: Its tensors; a scale among them.
        claimed: Widths that the config names, for packings that two widths would give.
        sizes: Sizes of groups and blocks that the config names, for rows whose last one is shorter.

    Raises:
        ArtifactError: Its tensors do not fit each other.
    """
    packed, plain, scale = one.get("weight_packed"), one.get("weight"), one.tensors["weight_scale"]
    if packed is not None and plain is not None:
        raise stored_twice(packed.name, plain.name)
    found: tuple[float, tuple[int, ...], str] | None = None
    if packed is not None and packed.dtype == "I32":
        found = _packed_integers(one, packed, claimed)
    elif packed is not None and packed.dtype == "U8":
        found = _packed_floats(packed, scale)
    elif plain is not None and plain.dtype == "I8" and len(plain.shape) >= 2:
        whole = scale.elements == 1
        found = used_bits(plain, rows=plain.shape[0] if whole else 32), plain.shape, "int"
    elif plain is not None and plain.dtype in _FLOAT8:
        found = 8, plain.shape, "float8"
    if found is None or len(found[1]) < 2 or not prod(found[1]):
        raise broken_layer(files, one.stem, "compressed-tensors")
    bits, shape, kind = found
    size, granularity = _grouping(files, one, scale, shape, sizes)
    block = block_sides(shape, scale) if granularity == "group" and kind == "float8" else None
    return LayerQuantization(one.stem, bits, size, shape, kind, block[0] if block else 1), granularity


def _packed_integers(one: Parts, packed: Tensor, claimed: set[int]) -> tuple[float, tuple[int, ...], str] | None:
    """Width from the number of words a row takes; where two widths take as many, from the bits that are in use."""
    noted = one.get("weight_shape")
    if noted is None or noted.dtype not in {"I64", "I32"} or noted.elements != len(packed.shape):
        return None
    shape = tuple(int(side) for side in np.asarray(noted.values()).reshape(-1))
    if shape[:-1] != packed.shape[:-1] or shape[-1] <= 0:
        return None
    columns, words = shape[-1], packed.shape[-1]
    dense = {bits for bits in range(1, 9) if -(-columns * bits // _WORD) == words}
    padded = {bits for bits in range(1, 9) if -(-columns // (_WORD // bits)) == words}
    used = highest_bit(packed.raw(_SAMPLED_WORDS * 4).view("<i4"))
    # A padded word leaves its highest bits empty; a dense one uses all of them.
    padded = {bits for bits in padded if _WORD // bits * bits >= used}
    fitting = dense | padded
    if not fitting:
        return None
    likely = {bits for bits in fitting if bits in claimed} or {min(padded) if padded else min(dense)}
    return min(likely), shape, "int"


def _packed_floats(packed: Tensor, scale: Tensor) -> tuple[float, tuple[int, ...], str] | None:
    """float4: two codes per byte; float6: four codes in three bytes. The scales' groups of 16 or 32 tell which."""
    stored = packed.shape[-1]
    groups = scale.shape[-1] if scale.shape else 1
    if stored * 2 in {groups * 16, groups * 32}:
        kind = "mxfp4" if stored * 2 == groups * 32 else "nvfp4"
        return 4, (*packed.shape[:-1], stored * 2), kind
    if stored * 4 == groups * 32 * 3:
        return 6, (*packed.shape[:-1], groups * 32), "mxfp6"
    return None


def _grouping(
    files: ArtifactFiles, one: Parts, scale: Tensor, shape: tuple[int, ...], sizes: frozenset[int]
) -> tuple[int | None, str]:
    """Group size along the input, and the granularity. Blocks of rows and columns count as groups."""
    columns, groups = shape[-1], scale.shape[-1] if len(scale.shape) == len(shape) else 1
    if scale.elements == 1 and prod(shape[:-1]) > 1:
        return None, "tensor"
    if groups > columns or not groups:
        raise broken_layer(files, one.stem, "compressed-tensors")
    if groups == 1:
        # Blocks of rows that are as wide as the matrix.
        is_block = len(scale.shape) == len(shape) and 1 < scale.shape[-2] < shape[-2]
        return (columns, "group") if is_block else (None, "channel")
    index = one.get("weight_g_idx")
    if index is not None and index.dtype in {"I32", "I64"} and index.shape == (columns,):
        of_column = np.asarray(index.values())
        if int(of_column.min()) >= 0 and int(of_column.max()) < groups:
            return int(np.bincount(of_column).max()), "group"
        if int(of_column.min()) != -1 or int(of_column.max()) != -1:
            raise broken_layer(files, one.stem, "compressed-tensors")
    likely = [size for size in sorted(sizes) if -(-columns // size) == groups]
    return likely[0] if likely else -(-columns // groups), "group"


def has_offset(one: Parts, layer: LayerQuantization) -> bool:
    """Whether any zero point is off the middle; packed ones are stored shifted by half the range."""
    zeros = one.get("weight_zero_point")
    if zeros is None:
        return False
    stored = zeros.raw()
    if not stored.any():
        # Packed zeros are the lowest code, plain ones the middle.
        return zeros.dtype == "I32" and one.get("weight_packed") is not None
    if zeros.dtype != "I32" or one.get("weight_packed") is None:
        return True
    bits = int(layer.bits)
    # Zero points are packed along the output: each column is one row of codes.
    columns = np.ascontiguousarray(np.asarray(zeros.stored()).T)
    rows = layer.shape[-2] if len(layer.shape) == 2 else 0
    return bool(rows % _WORD) or not np.array_equal(columns, constant_words(2 ** (bits - 1), bits, columns))


def _reordered(one: Parts) -> bool:
    index = one.get("weight_g_idx")
    return index is not None and index.dtype in {"I32", "I64"} and bool(np.any(np.diff(np.asarray(index.values())) < 0))


def _schemes(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the config says of the weights, one entry per group of layers."""
    groups = config.get("config_groups")
    found = groups.values() if isinstance(groups, dict) else ()
    return [group["weights"] for group in found if isinstance(group, dict) and isinstance(group.get("weights"), dict)]


def _claimed_groups(schemes: list[dict[str, Any]]) -> tuple[tuple[str, int | None], ...]:
    """Group sizes that the config gives to its groups of layers; nothing where one is of another kind (blocks)."""
    sizes: list[tuple[str, int | None]] = []
    for scheme in schemes:
        size, strategy = scheme.get("group_size"), str(scheme.get("strategy"))
        if strategy in {"channel", "tensor"}:
            sizes.append(("config.json", None))
        elif strategy in {"group", "tensor_group"} and isinstance(size, int) and size > 0:
            sizes.append(("config.json", size))
        else:
            return ()
    return tuple(sizes)


def _sizes(schemes: list[dict[str, Any]]) -> frozenset[int]:
    """Sizes of groups, and of blocks along the input, that the config names."""
    blocks = [scheme.get("block_structure") for scheme in schemes]
    named = [scheme.get("group_size") for scheme in schemes]
    named += [block[-1] for block in blocks if isinstance(block, list) and block]
    return frozenset(size for size in named if type(size) is int and 0 < size < _LARGEST_GROUP)


def _check_widths(files: ArtifactFiles, layers: Layers, claimed: set[int]) -> None:
    for layer in layers.found:
        if claimed and layer.bits not in claimed:
            spelled = ", ".join(f"{bits} bit" for bits in sorted(claimed))
            raise files.contradiction("config.json", spelled, f"{layer.bits:g} bit (in {layer.name[:100]})")


def _check_order(files: ArtifactFiles, schemes: list[dict[str, Any]], parts: list[Parts]) -> None:
    """Without act-order in the config, a loader takes the groups as they come."""
    scattered = next((one.stem for one in parts if _reordered(one)), None)
    if scattered is not None and schemes and not any(_has_order(scheme.get("actorder")) for scheme in schemes):
        raise files.contradiction("config.json", "groups in order (no actorder)", f"others (in {scattered[:200]})")


def _check_kinds(
    files: ArtifactFiles,
    schemes: list[dict[str, Any]],
    layers: tuple[LayerQuantization, ...],
    parts: list[Parts],
    shifted: list[bool],
) -> None:
    """A loader reads no zero points where the config says that there are none, and codes as the numbers that it names."""
    if not schemes:
        return
    is_symmetric = all(scheme.get("symmetric") is True for scheme in schemes)
    named = {str(scheme.get("type") or "int").lower() for scheme in schemes}
    for layer, one, has_zeros in zip(layers, parts, shifted, strict=True):
        if is_symmetric and has_zeros:
            raise files.contradiction("config.json", "symmetric", f"zero points (in {one.stem[:200]})")
        stored = "int" if layer.type == "int" else "float"
        if stored not in named:
            raise files.contradiction("config.json", "/".join(sorted(named))[:40], f"{stored} (in {one.stem[:200]})")


def _has_order(claimed: Any) -> bool:
    return claimed is True or str(claimed).lower() == "group"


def _activation_bits(config: dict[str, Any]) -> int | None:
    groups = config.get("config_groups")
    found = groups.values() if isinstance(groups, dict) else ()
    widths = [_bits(group.get("input_activations")) for group in found if isinstance(group, dict)]
    return min((width for width in widths if width), default=None)


def _bits(scheme: Any) -> int | None:
    width = scheme.get("num_bits") if isinstance(scheme, dict) else None
    return width if isinstance(width, int) and not isinstance(width, bool) else None
