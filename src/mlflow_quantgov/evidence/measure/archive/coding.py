"""How one piece of a file is coded, losslessly: planes of bytes, palettes, or as it is; each part by zstd, or raw.

A coded piece says itself how it was coded: `QGC1`, the length of a JSON header (4 bytes, little-endian), the header, and its
streams one after another. The header gives `size` (bytes of the piece), `how`, what that needs, and for each stream its coder
(`raw` or `zstd`), its coded and its plain length.

- `plain`: one stream.
- `planes`: numbers of `width` bytes, rotated left by one bit so that the exponent fills the last byte of bfloat16 and float32 and
  the sign joins the mantissa; then all first bytes, all second bytes and so on. Exponents of weights take few values, mantissas
  nearly all: apart, the former shrink to their entropy, and the latter are left alone.
- `palette`: see `palette.py`.

Bytes before the first whole number (`lead`) and after the last are the stream `edge` in front.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from mlflow_quantgov.evidence.measure.archive import palette

MAGIC = b"QGC1"
MAX_PIECE = 8 * 1024 * 1024
"""Bytes of the longest piece that is coded as one; a reader takes no longer one either."""
MAX_HEADER = 4096
MAX_CODED = MAX_PIECE + MAX_HEADER + 64
_LEVEL = 3
_SAMPLE = 1 << 17
"""Bytes of a piece on which the ways to code it are tried."""
_PARTS = 4
"""Places in a piece from which the sample is taken."""
_WORTH = 0.99
"""A stream that zstd shrinks less than this is kept raw: reading it back then costs nothing."""
_PALETTE_WORTH = 0.95
"""A palette takes longer than planes, and has to be so much smaller."""

# Numbers in planes hardly ever repeat in runs. With a table of 64 entries and matches of 7 bytes or more, zstd stops looking for
# them and spends its bits as Huffman codes: within 0.2 % of the entropy of SmolLM2's exponents, where level 1 lies 10 % above it.
_LITERALS = zstandard.ZstdCompressionParameters(
    window_log=20, hash_log=6, chain_log=6, search_log=1, min_match=7, target_length=0, strategy=zstandard.STRATEGY_FAST
)

Words = NDArray[np.unsignedinteger[Any]]


class CodingError(ValueError):
    """A coded piece does not hold what its header says."""


@dataclass(frozen=True)
class Way:
    """One way to code a piece."""

    how: str
    width: int = 1
    """Bytes per number."""
    lead: int = 0
    """Bytes before the first whole number."""
    block: int = 0
    """Numbers per palette."""


def encode(piece: bytes, *, width: int | None = None, lead: int = 0) -> bytes:
    """Code a piece in the way that makes it smallest, judged on a sample.

    Args:
        piece: At most `MAX_PIECE` bytes.
        width: Bytes per number, where it is known; None: whatever fits best.
        lead: Bytes before the first whole number.
    """
    way = _best(piece, width, lead % (width or 4))
    streams = [_squeeze(stream) for stream in _split(piece, way)]
    if sum(len(coded) for _, coded, _ in streams) > len(piece):  # the sample was another kind of data than the rest
        way, streams = Way("plain"), [_squeeze(piece)]
    header = json.dumps(
        {
            "size": len(piece),
            "how": way.how,
            "width": way.width,
            "lead": way.lead,
            "block": way.block,
            "streams": [[coder, len(coded), size] for coder, coded, size in streams],
        },
        separators=(",", ":"),
    ).encode()
    return b"".join([MAGIC, len(header).to_bytes(4, "little"), header, *(coded for _, coded, _ in streams)])


def decode(coded: bytes) -> bytes:
    """The piece, byte for byte.

    Raises:
        CodingError: This is no coded piece, or its parts do not fit.
    """
    way, size, streams = _read(coded)
    try:
        found = _join([_expand(*stream) for stream in streams], way)
    except (ValueError, IndexError, OverflowError, zstandard.ZstdError) as error:
        raise CodingError(str(error)) from error
    if len(found) != size:
        raise CodingError(f"it gives {len(found):,} bytes, not {size:,}")
    return found


def way_of(coded: bytes) -> Way:
    """How a piece was coded.

    Raises:
        CodingError: This is no coded piece.
    """
    return _read(coded)[0]


def _best(piece: bytes, width: int | None, lead: int) -> Way:
    """The way that makes a sample smallest; a simpler one where the gain is small."""
    ways = [Way("plain")]
    for one in (width,) if width else (2, 4):
        if one > 1 and len(piece) >= one + lead % one:
            ways.append(Way("planes", one, lead % one))
            if width in {2, 4}:
                ways += [Way("palette", one, lead % one, block) for block in palette.BLOCKS]
    if len(ways) == 1:
        return ways[0]
    sample = _sample(piece)
    best, least = ways[0], float("inf")
    for way in ways:
        size = sum(len(_squeeze(stream)[1]) for stream in _split(sample, way))
        if size < least * (_PALETTE_WORTH if way.how == "palette" else _WORTH):
            best, least = way, float(size)
    return best


def _sample(piece: bytes) -> bytes:
    """Parts from all over a piece; each begins at a multiple of every block and number, so that they follow one another like one."""
    if len(piece) <= _SAMPLE:
        return piece
    part, step = _SAMPLE // _PARTS, max(palette.BLOCKS) * 8
    starts = ((len(piece) - part) * number // (_PARTS - 1) // step * step for number in range(_PARTS))
    return b"".join(piece[start : start + part] for start in starts)


def _split(piece: bytes, way: Way) -> Iterator[bytes]:
    if way.how == "plain":
        yield piece
        return
    unit = way.width * max(1, way.block)
    end = way.lead + (len(piece) - way.lead) // unit * unit
    yield piece[: way.lead] + piece[end:]
    words = np.frombuffer(piece[way.lead : end], dtype=f"<u{way.width}")
    if way.how == "planes":
        yield from _planes(_rotated(words))
        return
    more, index, least, distances = palette.split(words, way.block)
    yield more.tobytes()
    yield index.tobytes()
    yield from _planes(least)
    yield from _planes(distances)


def _join(streams: list[bytes], way: Way) -> bytes:
    if way.how == "plain":
        (piece,) = streams
        return piece
    edge, *rest = streams
    if way.lead > len(edge):
        raise ValueError("the edge is too short")
    if way.how == "planes":
        words = _rotated_back(_from_planes(rest, way.width))
    else:
        more, index, *planes = rest
        words = palette.join(
            np.frombuffer(more, dtype=np.uint8),
            np.frombuffer(index, dtype=np.uint8),
            _from_planes(planes[: way.width], way.width),
            _from_planes(planes[way.width :], way.width),
            way.block,
        )
    return b"".join([edge[: way.lead], words.tobytes(), edge[way.lead :]])


def _planes(words: Words) -> Iterator[bytes]:
    columns = words.view(np.uint8).reshape(-1, words.dtype.itemsize)
    for number in range(words.dtype.itemsize):
        yield columns[:, number].tobytes()


def _from_planes(planes: list[bytes], width: int) -> Words:
    if len(planes) != width or len({len(plane) for plane in planes}) != 1:
        raise ValueError("planes of different lengths")
    columns = np.empty((len(planes[0]), width), dtype=np.uint8)
    for number, plane in enumerate(planes):
        columns[:, number] = np.frombuffer(plane, dtype=np.uint8)
    return columns.reshape(-1).view(f"<u{width}")


def _rotated(words: Words) -> Words:
    one, rest = words.dtype.type(1), words.dtype.type(8 * words.dtype.itemsize - 1)
    return (words << one) | (words >> rest)


def _rotated_back(words: Words) -> Words:
    one, rest = words.dtype.type(1), words.dtype.type(8 * words.dtype.itemsize - 1)
    return (words >> one) | (words << rest)


def _squeeze(stream: bytes) -> tuple[str, bytes, int]:
    """Coder, coded bytes and plain length of a stream."""
    if len(stream) <= _SAMPLE:
        tried = [_compressor(literals).compress(stream) for literals in (True, False)]
        coded = min(tried, key=len)
    else:
        start = (len(stream) - _SAMPLE) // 2
        sample = stream[start : start + _SAMPLE]
        sizes = {literals: len(_compressor(literals).compress(sample)) for literals in (True, False)}
        if min(sizes.values()) > _SAMPLE * _WORTH:
            return "raw", stream, len(stream)
        coded = _compressor(sizes[True] <= sizes[False]).compress(stream)
    return ("zstd", coded, len(stream)) if len(coded) < len(stream) * _WORTH else ("raw", stream, len(stream))


def _compressor(literals: bool) -> zstandard.ZstdCompressor:
    """A compressor of its own for each call: they are not to be shared between threads."""
    return zstandard.ZstdCompressor(compression_params=_LITERALS) if literals else zstandard.ZstdCompressor(_LEVEL)


def _expand(coder: str, coded: bytes, size: int) -> bytes:
    if coder == "raw":
        found = coded
    else:
        # The frame says how much it gives: that is allocated, so it is compared first.
        if zstandard.frame_content_size(coded) != size:
            raise ValueError("a stream of another length")
        found = zstandard.ZstdDecompressor().decompress(coded, max_output_size=size, allow_extra_data=False)
    if len(found) != size:
        raise ValueError("a stream of another length")
    return found


def _read(coded: bytes) -> tuple[Way, int, list[tuple[str, bytes, int]]]:
    """The header of a coded piece, checked, and its streams, still coded."""
    length = int.from_bytes(coded[4:8], "little")
    if coded[:4] != MAGIC or length > MAX_HEADER or len(coded) < 8 + length:
        raise CodingError("it does not begin like a coded piece")
    try:
        header = json.loads(coded[8 : 8 + length])
        way = Way(str(header["how"]), *(header[key] for key in ("width", "lead", "block")))
        size = header["size"]
        listed = [(str(coder), stored, plain) for coder, stored, plain in header["streams"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CodingError("its header cannot be read") from error
    numbers = [size, way.width, way.lead, way.block, *(number for _, *pair in listed for number in pair)]
    if any(type(number) is not int or not 0 <= number <= MAX_PIECE for number in numbers):
        raise CodingError("its header has an impossible number")
    known = way.how in {"plain", "planes", "palette"} and way.width in {1, 2, 4, 8} and way.lead < way.width
    if not known or way.block > 256 or (way.how == "palette" and (way.block == 0 or way.width not in {2, 4})):
        raise CodingError("it is coded in a way that is not known here")
    # Indices of a palette are bytes, so its streams may give no more than a few times the piece.
    if sum(plain for *_, plain in listed) > 4 * MAX_PIECE or any(coder not in {"raw", "zstd"} for coder, *_ in listed):
        raise CodingError("its streams are not known here")
    streams, start = [], 8 + length
    for coder, stored, plain in listed:
        streams.append((coder, coded[start : start + stored], plain))
        start += stored
    if start != len(coded):
        raise CodingError(f"it has {len(coded):,} bytes, its header needs {start:,}")
    return way, size, streams
