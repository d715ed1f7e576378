from __future__ import annotations

import base64
import gzip
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import BadRequest, BodyTooLarge, ServiceError, TooManyImages
from service.http.inference_body import JSON_LENGTH, answer_body, parse_body
from service.inference_protocol.inference import InferAnswer, OutputTensor
from service.inference_protocol.requests import InferRequest, RequestedOutput
from service.inference_protocol.tensors import join_strings

MAX_BYTES = 2**24
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


def parse(body: bytes, **headers: str) -> InferRequest:
    return parse_body(Headers({k.replace("_", "-"): v for k, v in headers.items()}), body, MAX_BYTES, 4)[0]


def document(data: Any = None, shape: Any = (1,), datatype: str = "BYTES", **others: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": datatype, "shape": list(shape)}
    return {"inputs": [tensor if data is None else {**tensor, "data": data}], **others}


def text(string: bytes) -> str:
    return base64.b64encode(string).decode()


def with_binary(binary: bytes, size: Any = None, **others: Any) -> tuple[bytes, str]:
    """A body with the tensor's data behind the JSON, and the JSON's length."""
    found = document(**others)
    found["inputs"][0]["parameters"] = {"binary_data_size": len(binary) if size is None else size}
    head = orjson.dumps(found)
    return head + binary, str(len(head))


def refused(body: bytes, **headers: str) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(body, **headers)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    return caught.value.message


def test_encoded_images_as_base64() -> None:
    request = parse(orjson.dumps(document([text(b"one"), text(b"two")], [2], id="an-id", unknown=1)))
    assert request.images == [b"one", b"two"]
    assert (request.id, request.outputs) == ("an-id", [])


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_flat_or_nested(nested: bool) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    request = parse(orjson.dumps(document(data, pixels.shape, "UINT8", outputs=[{"name": "logits"}])))
    np.testing.assert_array_equal(np.stack(request.images), pixels)  # type: ignore[arg-type]
    assert request.outputs == [RequestedOutput("logits")]


def test_binary_data() -> None:
    body, length = with_binary(join_strings([b"one", b"\xff\xd8"]), shape=(2,), parameters={"binary_data_output": True})
    request = parse(body, inference_header_content_length=length)
    assert request.images == [b"one", b"\xff\xd8"]
    assert request.binary
    body, length = with_binary(bytes(range(12)), shape=(1, 2, 2, 3), datatype="UINT8")
    (image,) = parse(body, inference_header_content_length=length).images
    assert image.tobytes() == bytes(range(12))  # type: ignore[union-attr]


def test_a_raw_body_is_one_image() -> None:
    assert parse(b"an image", inference_header_content_length="0").images == [b"an image"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body(encoding: str, pack: Any) -> None:
    body = orjson.dumps(document([text(b"one")]))
    assert parse(pack(body), content_encoding=encoding).images == [b"one"]
    assert "breaks off" in refused(pack(body)[:-5], content_encoding=encoding)
    assert f"no {encoding} data" in refused(body, content_encoding=encoding)
    with pytest.raises(BodyTooLarge):
        parse(pack(bytes(MAX_BYTES + 1)), content_encoding=encoding)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "inputs must be a list"),
        ([], "the body must be a JSON object"),
        ({"inputs": []}, "the request has 0 inputs"),
        ({"inputs": [1]}, "an input must be a JSON object"),
        (document(["YQ=="], id=7), "id must be a string"),
        (document(["YQ=="], outputs={}), "outputs must be a list"),
        (document(["YQ=="], outputs=["logits"]), "an output must be a JSON object"),
        (document(["YQ=="], outputs=[{"name": "logits", "parameters": 1}]), "parameters must be a JSON object"),
        (document(["YQ=="], parameters=[]), "parameters must be a JSON object"),
        (document(), "data must be a list"),
        (document("YQ=="), "data must be a list"),
        (document(["no base64!"]), "image 0 is no base64 text"),
        (document(["YQ==", "\u00e4"], [2]), "image 1 is no base64 text"),
        (document([["YQ=="]]), "image 0 is no base64 text"),
        (document([""]), "image 0 is empty"),
        (document(["YQ=="], [2]), "the shape says 2 strings, the data has 1"),
        (document([1, 2, 3], (1, 1, 1, 3), "UINT8") | {"inputs": [{}]}, "unknown input"),
        (document([1, 2], (1, 1, 1, 3), "UINT8"), "the shape says 3 values, the data has 2"),
        (document([1, 2, 256], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([1, 2, -1], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([1, 2, 2**64 - 1], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([1, 2, 1.5], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([1, 2, "3"], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([1, 2, [3]], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
        (document([[[[1, 2, 3]]], [[[1, 2, 3]]]], (1, 1, 1, 3), "UINT8"), "not nested as the shape"),
        (document([[[1, 2, 3]]], (1, 1, 1, 3), "UINT8"), "not nested as the shape"),
        (document([[[[1, 2], 3]]], (1, 1, 1, 3), "UINT8"), "not nested as the shape"),
        (document([["ab", [1]]], (1, 2, 1, 3), "UINT8"), "not nested as the shape"),
        (document([[[["a", "b", "c"]]]], (1, 1, 1, 3), "UINT8"), "whole numbers from 0 to 255"),
    ],
)
def test_a_wrong_request_is_told(content: Any, says: str) -> None:
    assert says in refused(orjson.dumps(content))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"nul", b"[" * 100_000, b'{"inputs":' * 5000, b'{"a":' * 900 + b"1" + b"}" * 900],
)
def test_what_is_no_json(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b"1,"])
def test_json_of_too_many_values_is_refused_before_it_is_read(piece: bytes) -> None:
    body = b'{"inputs": [' + piece * 1_100_000 + b"1]}"
    assert "too many values" in refused(body)


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "99999999999999999999999", "\u0661"])
def test_a_length_that_is_none(length: str) -> None:
    headers = Headers(raw=[(JSON_LENGTH.encode(), length.encode("utf-8"))])
    with pytest.raises(BadRequest, match="no number"):
        parse_body(headers, b"{}", MAX_BYTES, 4)


def test_sizes_that_lie() -> None:
    body, length = with_binary(join_strings([b"one"]))
    assert "says 999 bytes of JSON" in refused(body, inference_header_content_length="999")
    assert "no JSON" in refused(body, inference_header_content_length=str(int(length) - 1))
    assert "binary_data_size is" in refused(body + b"x", inference_header_content_length=length)
    for size in (-1, 2**63, 6, 8, 1.0, True, "7", [7]):
        body, length = with_binary(join_strings([b"one"]), size)
        assert "binary_data_size is" in refused(body, inference_header_content_length=length)
    head = orjson.dumps(document(["YQ=="]))
    assert "no input says" in refused(head + b"more", inference_header_content_length=str(len(head)))
    body, length = with_binary(join_strings([b"one"]), data=["YQ=="])
    assert "both data and binary_data_size" in refused(body, inference_header_content_length=length)
    body, length = with_binary(bytes(3), shape=(1, 2**32, 2**32, 3), datatype="UINT8")
    assert "the data has 3" in refused(body, inference_header_content_length=length)


def test_too_many_images() -> None:
    with pytest.raises(TooManyImages):
        parse(orjson.dumps(document(["YQ=="] * 5, [5])))


@given(JSON, JSON, JSON, JSON, JSON)
def test_any_json_is_a_request_or_an_error_of_ours(
    shape: Any, data: Any, parameters: Any, outputs: Any, any_: Any
) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": data}
    contents = [
        any_,
        {"inputs": any_},
        {"inputs": [any_]},
        {"inputs": [tensor], "parameters": parameters, "outputs": outputs},
        {"inputs": [tensor | {"datatype": "BYTES", "shape": [1], "data": data}], "outputs": [any_]},
        {"inputs": [tensor | {"shape": [1, 1, 1, 3], "data": data, "parameters": parameters}]},
        {"inputs": [tensor | {"shape": [1, 1, 1, 3], "data": [1, 2, any_]}]},
    ]
    for content in contents:
        with suppress(ServiceError):
            parse(orjson.dumps(content))


@given(
    st.binary(max_size=200),
    st.integers(0, 220) | st.text(st.characters(codec="latin-1")),
    st.sampled_from(["gzip", "identity"]),
)
def test_any_body_is_a_request_or_an_error_of_ours(body: bytes, length: int | str, encoding: str) -> None:
    with suppress(ServiceError):
        parse(body, inference_header_content_length=str(length), content_encoding=encoding)


@given(st.binary(max_size=60), st.integers(-(2**63), 2**64 - 1) | st.none())
def test_any_binary_data(binary: bytes, size: int | None) -> None:
    for shape, datatype in (((2,), "BYTES"), ((1, 2, 2, 3), "UINT8")):
        body, length = with_binary(binary, size, shape=shape, datatype=datatype)
        with suppress(ServiceError):
            parse(body, inference_header_content_length=length)


def test_an_answer_as_json() -> None:
    values = np.array([[0.1, 0.25]], np.float32)
    outputs = [
        OutputTensor("logits", (1, 2), values, False),
        OutputTensor("classes", (1, 1), ["0.5:1:Käse".encode()], False),
    ]
    answer = answer_body(InferAnswer("tiny", "1", "an-id", outputs))
    assert dict(answer.headers) == {b"content-type": b"application/json"}
    assert orjson.loads(answer.body) == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "an-id",
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.25]},
            {"name": "classes", "datatype": "BYTES", "shape": [1, 1], "data": ["0.5:1:Käse"]},
        ],
    }


def test_an_answer_with_binary_data() -> None:
    values = np.array([[0.1, 0.25]], np.float32)
    outputs = [
        OutputTensor("logits", (1, 2), values, True),
        OutputTensor("probabilities", (1, 2), values, False),
        OutputTensor("classes", (1, 2), [b"a", b"bc"], True),
    ]
    answer = answer_body(InferAnswer("tiny", "1", "", outputs))
    headers = dict(answer.headers)
    assert headers[b"content-type"] == b"application/octet-stream"
    length = int(headers[JSON_LENGTH.encode()])
    head = orjson.loads(answer.body[:length])
    assert "id" not in head
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in head["outputs"]]
    assert sizes == [8, None, 11]
    assert ["data" in output for output in head["outputs"]] == [False, True, False]
    assert answer.body[length:] == values.tobytes() + b"\1\0\0\0a\2\0\0\0bc"
