"""Coding and cutting: every byte comes back, whatever it is; numbers get smaller than zstd makes them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.tensors import write_safetensors
from mlflow_quantgov.evidence.measure.archive import coding, cutting, palette
from mlflow_quantgov.evidence.measure.archive.coding import MAGIC, CodingError, Way, decode, encode, way_of
from mlflow_quantgov.evidence.measure.archive.cutting import LEAST_PIECE, MOST_PIECE, cut

random = np.random.default_rng(3)
NORMAL = random.normal(0, 0.02, 1 << 18).astype(np.float32)
WAYS = [
    Way("plain"),
    *(Way("planes", width, lead) for width in (2, 4, 8) for lead in range(width)),
    *(Way("palette", width, lead, block) for width in (2, 4) for lead in (0, 1) for block in palette.BLOCKS),
]


@given(st.binary(max_size=3000), st.sampled_from([None, 1, 2, 4, 8]), st.integers(0, 7))
@example(b"", 2, 1)
@example(b"\x00", 8, 7)
def test_any_bytes_come_back(data: bytes, width: int | None, lead: int) -> None:
    assert decode(encode(data, width=width, lead=lead)) == data


@settings(max_examples=300)
@given(st.data())
def test_every_way_gives_any_bytes_back(data: st.DataObject) -> None:
    """Whichever the encoder would have chosen; few values, so that palettes have something to gather."""
    values = st.binary(max_size=1500) | st.lists(st.sampled_from([0, 1, 127, 128, 255]), max_size=1500).map(bytes)
    piece, way = data.draw(values), data.draw(st.sampled_from(WAYS))
    if len(piece) < way.lead:
        piece += bytes(way.lead)
    assert coding._join(list(coding._split(piece, way)), way) == piece


@given(st.binary(min_size=64, max_size=2048), st.sampled_from(["<f2", "<f4", "<f8", "<u2", "<i4"]), st.integers(1, 40))
def test_tensors_of_any_type_come_back(seed: bytes, dtype: str, repeats: int) -> None:
    """NaNs of every pattern, infinities and negative zeros are among them: nothing is computed with the numbers."""
    values = np.frombuffer(seed[: len(seed) // 8 * 8], dtype=dtype)
    data = np.tile(values, repeats).tobytes()
    assert decode(encode(data, width=values.dtype.itemsize)) == data


@pytest.mark.parametrize("pattern", range(0, 65536, 4096))
def test_every_bfloat16_comes_back_in_palettes(pattern: int) -> None:
    words = np.arange(pattern, pattern + 4096, dtype=np.uint16)
    parts = palette.split(np.random.default_rng(1).permutation(words), 32)
    again = palette.join(*parts, 32)
    assert (again == np.random.default_rng(1).permutation(words)).all()


def test_the_exponents_of_weights_shrink_to_their_entropy_and_mantissas_are_left_alone() -> None:
    bf16 = (NORMAL.view(np.uint32) >> 16).astype(np.uint16)
    coded = encode(bf16.tobytes(), width=2)
    assert way_of(coded).how == "planes"
    counts = np.bincount((bf16 >> 7) & 255)
    shares = counts[counts > 0] / len(bf16)
    entropy = len(bf16) * (8 - (shares * np.log2(shares)).sum()) / 8
    assert len(coded) < entropy * 1.01
    assert len(coded) < 0.9 * len(zstandard.compress(bf16.tobytes(), 19))


@pytest.mark.parametrize(("dtype", "width"), [(np.float16, 2), (np.float32, 4), (np.float64, 8)])
def test_other_floating_point_numbers_are_smaller_than_zstds_too(dtype: type, width: int) -> None:
    data = NORMAL[: 1 << 16].astype(dtype).tobytes()
    assert len(encode(data, width=width)) < len(zstandard.compress(data, 19))


def test_weights_that_lie_on_a_grid_take_few_bits() -> None:
    """4-bit codes times a scale per 32, as a parent that was made from a 4-bit file holds them."""
    codes = random.integers(0, 16, (4096, 32))
    values = ((codes - 8) * random.uniform(0.001, 0.01, (4096, 1))).astype(np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    coded = encode(data, width=2)
    assert way_of(coded) == Way("palette", 2, 0, 32)
    assert decode(coded) == data and len(coded) < 0.75 * len(zstandard.compress(data, 19))


def test_numbers_are_found_where_nobody_says_their_width() -> None:
    """A pickle's storages, a graph's data: aligned in the file, not in the piece."""
    data = b"x" * 3 + NORMAL.tobytes()[: 1 << 18]
    coded = encode(data, lead=3)
    assert way_of(coded) == Way("planes", 4, 3) and decode(coded) == data


def test_a_sample_that_stands_for_nothing_else_does_no_harm() -> None:
    """Only the sampled parts lie on a grid: coded like that the whole would be longer than it is."""
    piece = bytearray(random.bytes(4 << 20))
    part, step = 1 << 15, 1024
    for number in range(4):
        start = (len(piece) - part) * number // 3 // step * step
        blocks = random.integers(0, 1 << 12, (512, 1)) * 16 + random.integers(0, 8, (512, 32))
        piece[start : start + part] = blocks.astype(np.uint16).tobytes()
    coded = encode(bytes(piece), width=2)
    assert decode(coded) == piece and way_of(coded).how == "plain" and len(coded) < len(piece) + 1000


def damaged_headers() -> list[bytes]:
    def made(**changes: object) -> bytes:
        header = {"size": 4, "how": "plain", "width": 1, "lead": 0, "block": 0, "streams": [["raw", 4, 4]]} | changes
        text = json.dumps(header).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text + b"abcd"

    assert decode(made()) == b"abcd"
    bomb = zstandard.compress(bytes(1 << 30))
    text = json.dumps(
        {"size": 4, "how": "plain", "width": 1, "lead": 0, "block": 0, "streams": [["zstd", len(bomb), 4]]}
    )
    return [
        b"",
        b"QGC1",
        b"PK\x03\x04" + bytes(40),
        MAGIC + (2**31).to_bytes(4, "little"),
        MAGIC + (4).to_bytes(4, "little") + b"null",
        MAGIC + len(text).to_bytes(4, "little") + text.encode() + bomb,
        made(size=5),
        made(size=True),
        made(size=10**12),
        made(how="pickle"),
        made(how=["plain"]),
        made(width=3),
        made(width=2, lead=2, how="planes"),
        made(how="planes", width=2),
        made(how="palette", width=2),
        made(how="palette", width=2, block=32),
        made(how="palette", width=2, block=10**6),
        made(streams=[]),
        made(streams=[["raw", 3, 3]]),
        made(streams=[["raw", 9, 9]]),
        made(streams=[["raw", -4, 4]]),
        made(streams=[["brotli", 4, 4]]),
        made(streams=[["zstd", 4, 4]]),
        made(streams=[["raw", 4, 5]]),
        made(streams="raw"),
    ]


@pytest.mark.parametrize("coded", damaged_headers())
def test_what_is_no_coded_piece_is_one_error(coded: bytes) -> None:
    with pytest.raises(CodingError):
        decode(coded)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_piece_is_an_error_or_other_bytes_and_never_a_crash(data: st.DataObject) -> None:
    grid = (NORMAL[:2048].view(np.uint32) >> 16).astype(np.uint16) & 0xFFC0
    coded = bytearray(
        encode(data.draw(st.sampled_from([grid.tobytes(), NORMAL[:999].tobytes(), b"text" * 99])), width=2)
    )
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(CodingError):
        decode(bytes(coded[: data.draw(st.integers(0, len(coded)))]))


def test_pieces_give_the_file_and_follow_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {"b": random.integers(0, 9, (5 << 20,)).astype(np.uint16), "a": NORMAL[:5], "none": NORMAL[:0]}
    write_safetensors(path, tensors, bf16=frozenset({"b"}))
    pieces = list(cut(path))
    assert b"".join(piece.data for piece in pieces) == path.read_bytes()
    assert [(piece.tensor, piece.width, len(piece.data)) for piece in pieces[1:]] == [
        ("a", 4, 20),
        ("b", 2, 8 << 20),
        ("b", 2, 2 << 20),
    ]


def test_a_file_whose_header_is_broken_is_cut_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + random.bytes(3_000_000))
    assert b"".join(piece.data for piece in cut(path)) == path.read_bytes()


@pytest.mark.slow
@given(st.binary(max_size=200), st.integers(0, 3))
@settings(max_examples=20)
def test_pieces_find_themselves_again_after_bytes_were_put_in_front(front: bytes, name: int) -> None:
    data = np.random.default_rng(name).bytes(9_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.bin"
        path.write_bytes(data)
        before = [piece.data for piece in cut(path)]
        path.write_bytes(front + data)
        after = [piece.data for piece in cut(path)]
    assert b"".join(before) == data and b"".join(after) == front + data
    assert all(len(piece) <= MOST_PIECE for piece in after) and all(len(piece) >= LEAST_PIECE for piece in after[:-1])
    shared = sum(len(piece) for piece in set(before) & set(after))
    assert shared > len(data) / 3


def test_a_file_that_changes_while_its_header_is_read_is_not_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last tensor then ends behind the size that was seen first."""
    path, find = tmp_path / "m.safetensors", cutting._tensors
    write_safetensors(path, {"a": NORMAL[:5]})

    def grown(path: Path) -> object:
        write_safetensors(path, {"a": NORMAL, "b": NORMAL})
        found = find(path)
        with path.open("ab") as file:
            file.write(bytes(2 * coding.MAX_PIECE))
        return found

    monkeypatch.setattr(cutting, "_tensors", grown)
    assert max(len(piece.data) for piece in cut(path)) <= coding.MAX_PIECE
