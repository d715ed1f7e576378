"""Weights in another file are found wherever ONNX allows them, and the store takes no such graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from model_store import onnx_data
from model_store.onnx_data import keeps_weights_outside
from model_store.store import EMBEDDED_MODELS, LABELS_FILE, ModelStore, StoreError
from model_store.verified import describe_file
from tests.export.onnx_nets import usual
from tests.model_store.stores import stage


def outside(tensor: TensorProto, location: str = "other.bin") -> TensorProto:
    """``tensor`` with its values in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def weights(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.ones((2, 2), np.float32), name)


def an_attribute(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def a_graph(*nodes: onnx.NodeProto, weights: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, "g", [], [], weights)


def in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(a_graph(weights=(tensor,)))


def in_constant(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(a_graph(an_attribute(tensor)))


def in_tensors(tensor: TensorProto) -> onnx.ModelProto:
    node = an_attribute(weights())
    node.attribute[0].tensors.append(tensor)
    return helper.make_model(a_graph(node))


def in_branch(tensor: TensorProto) -> onnx.ModelProto:
    inner = a_graph(weights=(tensor,))
    return helper.make_model(a_graph(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)))


def in_graphs(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Odd", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("bodies", [a_graph(weights=(tensor,))]))
    return helper.make_model(a_graph(node))


def in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(a_graph())
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return model


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(a_graph())
    model.functions.add().node.append(an_attribute(tensor))
    return model


def in_training(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(a_graph())
    model.training_info.add().initialization.initializer.append(tensor)
    return model


PLACES = [in_initializer, in_constant, in_tensors, in_branch, in_graphs, in_sparse, in_function, in_training]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_it_is_found_wherever_it_is(tmp_path: Path, place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(place(weights()).SerializeToString())
    assert not keeps_weights_outside(path)
    path.write_bytes(place(outside(weights())).SerializeToString())
    assert keeps_weights_outside(path)


def test_either_half_of_it_is_enough(tmp_path: Path) -> None:
    """A tensor that says where without saying that, and one that says that without saying where."""
    path = tmp_path / "m.onnx"
    for field in ("data_location", "external_data"):
        tensor = outside(weights())
        tensor.ClearField(field)
        path.write_bytes(in_initializer(tensor).SerializeToString())
        assert keeps_weights_outside(path)


def test_it_is_found_behind_what_readers_pass_over(tmp_path: Path) -> None:
    """Groups, a deprecated kind of field that ONNX does not have, are no error to its readers."""
    begin, end = bytes([0x9B, 0x06]), bytes([0x9C, 0x06])  # field 99
    path = tmp_path / "m.onnx"
    path.write_bytes(begin + end + in_initializer(outside(weights())).SerializeToString())
    assert onnx.load(path, load_external_data=False).graph.initializer[0].external_data
    assert keeps_weights_outside(path)


def test_the_embedded_model_has_all_of_its_own() -> None:
    files = list(EMBEDDED_MODELS.rglob("*.onnx"))
    assert files
    assert not any(map(keeps_weights_outside, files))


@pytest.mark.parametrize("data", [b"", b"weights", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x7f", b"\x3b" * 10])
def test_what_is_no_model_is_left_to_onnx_runtime(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert not keeps_weights_outside(path)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_to_their_end(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    keeps_weights_outside(path)


def test_nesting_ends(tmp_path: Path) -> None:
    graph = b""
    for _ in range(2000):  # Graph.node = Node.attribute = Attribute.g = Graph
        for tag in (0x32, 0x2A, 0x0A):
            graph = bytes([tag]) + _length(len(graph)) + graph
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a" + _length(len(graph)) + graph)
    assert not keeps_weights_outside(path)
    with pytest.raises(DecodeError):  # nor does anybody read it as more
        onnx.ModelProto.FromString(path.read_bytes())


def _length(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def test_fields_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_data, "MAX_FIELDS", 1000)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x00" * 1001)
    with pytest.raises(ValueError, match="more than 1000 fields"):
        keeps_weights_outside(path)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_the_store_neither_publishes_nor_loads_it(tmp_path: Path, location: str) -> None:
    store = ModelStore(tmp_path / "models")
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    model = usual().model()
    outside(model.graph.initializer[0], location)
    with store.staging() as staged:
        manifest = stage(staged)
        file = staged / manifest.variants[0].file
        file.write_bytes(model.SerializeToString())
        (staged / "weights.bin").write_bytes(bytes(10_000))
        variant = manifest.variants[0].model_copy(update=describe_file(file).model_dump())
        manifest = manifest.model_copy(update={"variants": [variant]})
        with pytest.raises(StoreError, match="keeps weights in another file, which no hash pins"):
            store.publish(staged, manifest)
    assert store.names() == []
    assert (tmp_path / "weights.bin").stat().st_size == 10_000
    assert LABELS_FILE not in {path.name for path in store.root.rglob("*")}
