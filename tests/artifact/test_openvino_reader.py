"""The reader of OpenVINO graphs: whatever the bytes, an answer or one ArtifactError, within bounds."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from bounded import accepts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.tensors import read_openvino
from mlflow_quantgov.errors import ArtifactError, UnknownFormatError

ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"
XML = (ARTIFACTS / "openvino-int4-asym" / "openvino_model.xml").read_bytes()
BIN = (ARTIFACTS / "openvino-int4-asym" / "openvino_model.bin").read_bytes()
FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONSTANT = '<layer id="{id}" name="w{id}" type="Const"><data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/></layer>'  # fmt: skip


def reads(folder: Path, xml: bytes) -> bool:
    """Whether a graph is accepted; anything but an ArtifactError fails the test, and so does much memory."""
    (folder / "openvino_model.xml").write_bytes(xml)
    return accepts(lambda: (read_openvino(folder / "openvino_model.xml"), inspect(folder)))


def constant(kind: str = "f32", shape: str = "4, 2", offset: str = "0", size: str = "32", id: str = "0") -> str:
    return CONSTANT.format(id=id, kind=kind, shape=shape, offset=offset, size=size)


def net(layers: str, edges: str = "") -> bytes:
    return f'<?xml version="1.0"?><net name="m" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>'.encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of constants."""
    (tmp_path / "openvino_model.bin").write_bytes(BIN)
    return tmp_path


@FUZZ
@given(st.data())
def test_mutated_graphs_never_crash(folder: Path, data: st.DataObject) -> None:
    changed = bytearray(XML)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    reads(folder, bytes(changed))


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_changed_numbers_never_crash(folder: Path, data: st.DataObject) -> None:
    digits = [at for at, byte in enumerate(XML) if 48 <= byte < 58]
    changed = bytearray(XML)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.sampled_from(digits))] = data.draw(st.integers(48, 57))
    reads(folder, bytes(changed))


@FUZZ
@given(st.integers(0, len(XML) - 8))
def test_a_truncated_graph_is_refused(folder: Path, cut: int) -> None:
    assert not reads(folder, XML[:cut])


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE net>",
        '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE net SYSTEM "file:///etc/hostname">',
        '<!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
    ],
)
def test_a_document_type_is_refused(folder: Path, head: str) -> None:
    (folder / "openvino_model.xml").write_bytes(XML.replace(b'<?xml version="1.0"?>', head.encode(), 1))
    with pytest.raises(ArtifactError, match="document type"):
        read_openvino(folder / "openvino_model.xml")


@pytest.mark.parametrize(
    "found",
    [
        constant(kind="f7"), constant(shape="4, 3"), constant(shape="4, -2"), constant(offset="-1"), constant(size=""),
        constant(offset=str(len(BIN))), constant(offset="9" * 30), constant(shape="1," * 40 + "8"), constant(shape="a"),
        constant() + constant(offset="16", id="1"), constant() + constant(), constant(id="x"), constant(id="-1"),
        f'<layer id="1" name="a" type="If">{constant()}</layer>',
    ],
)  # fmt: skip
def test_a_constant_that_is_not_where_it_is_said_to_be(folder: Path, found: str) -> None:
    assert reads(folder, net(constant()))
    assert not reads(folder, net(found))


@pytest.mark.parametrize("xml", [b"", b"<a/>", b"<net/>", b"<net><layer id='0'/></net>", net(""), net("<layer/>")])
def test_what_is_no_graph(folder: Path, xml: bytes) -> None:
    assert not reads(folder, xml)


def test_an_edge_to_nowhere(folder: Path) -> None:
    edge = '<edge from-layer="0" from-port="0" to-layer="5" to-port="0"/>'
    assert not reads(folder, net(constant(), edge))


def test_elements_nested_like_a_bomb(folder: Path) -> None:
    assert not reads(folder, net("<a>" * 5000 + "</a>" * 5000))


def test_a_name_in_another_encoding_is_not_guessed(folder: Path) -> None:
    assert not reads(folder, net(constant()).replace(b"w0", b"w\xff"))


def test_constants_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert not reads(folder, XML)
    (tmp_path / "elsewhere").write_bytes(BIN)
    (folder / "openvino_model.bin").symlink_to(tmp_path / "elsewhere")
    assert not reads(folder, XML)


def test_constants_are_never_read(folder: Path) -> None:
    os.truncate(folder / "openvino_model.bin", 2**40)
    tracemalloc.start()
    (folder / "openvino_model.xml").write_bytes(net(constant(shape=f"{2**19}, {2**19}", size=str(2**40))))
    found = read_openvino(folder / "openvino_model.xml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tensors["w0"].size == 2**40 and peak < 1024 * 1024


def test_bodies_count_their_layers_anew(folder: Path) -> None:
    body = f"<layers>{constant(id='0')}{constant(id='1', offset='32')}</layers><edges></edges>"
    loop = f'<layer id="1" name="loop" type="Loop"><body>{body}</body><back_edges><edge from-layer="0" to-layer="1"/></back_edges></layer>'  # fmt: skip
    assert reads(folder, net(constant() + loop))
    assert len(read_openvino(folder / "openvino_model.xml").tensors) == 3


def test_codes_that_nothing_scales(folder: Path) -> None:
    layers = constant("i8", "100, 100", "0", "10000") + '<layer id="1" name="r" type="Result"/>'
    with pytest.raises(UnknownFormatError, match="openvino"):
        (folder / "openvino_model.xml").write_bytes(net(layers, '<edge from-layer="0" to-layer="1" to-port="0"/>'))
        inspect(folder)


def test_scales_that_do_not_fit_the_codes(folder: Path) -> None:
    changed = XML.replace(b'element_type="f16" shape="64, 2, 1"', b'element_type="f16" shape="2, 64, 1"')
    assert changed != XML
    (folder / "openvino_model.xml").write_bytes(changed)
    with pytest.raises(ArtifactError, match="no sound OpenVINO layer"):
        inspect(folder)


def test_nncf_says_whether_it_saw_data(folder: Path) -> None:
    (folder / "openvino_model.xml").write_bytes(XML)
    assert inspect(folder).quantization.calibration_required is False
    (folder / "openvino_model.xml").write_bytes(XML.replace(b'<awq value="False" />', b'<awq value="True" />'))
    assert inspect(folder).quantization.calibration_required is True
    without = XML[: XML.rindex(b"<rt_info>")] + b"</net>"
    (folder / "openvino_model.xml").write_bytes(without)
    assert inspect(folder).quantization.calibration_required is None
