from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest
from service.grpc import open_inference_pb2 as pb
from service.grpc import wire
from service.grpc.wire import check_cost

LARGE = 2**16


def request(**fields: object) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="tiny", id="an-id", **fields)  # type: ignore[arg-type]


def typed(**contents: object) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="image",
        shape=[1],
        contents=pb.InferTensorContents(**contents),  # type: ignore[arg-type]
    )
    tensor.parameters["a"].double_param = 1.0
    return request(inputs=[tensor]).SerializeToString()


def test_requests_pass() -> None:
    check_cost(request(raw_input_contents=[bytes(2 * LARGE)]).SerializeToString(), pb.ModelInferRequest, 8)
    check_cost(typed(bytes_contents=[bytes(LARGE)] * 4), pb.ModelInferRequest, 32)
    check_cost(typed(uint_contents=[1] * LARGE), pb.ModelInferRequest, 32)
    check_cost(typed(fp32_contents=[1.0] * LARGE), pb.ModelInferRequest, 32)


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\x00" * LARGE,  # empty inputs
        b"\x3a\x00" * LARGE,  # empty raw contents
        b"\x22\x00" * LARGE,  # empty parameters
        b"\x78\x01" * LARGE,  # unknown fields
        typed(bytes_contents=[b""] * LARGE),
        b"\x0d\x00\x00\x00\x00" * LARGE,
        b"\x09" + bytes(8) + b"\x09\x00\x00\x00\x00\x00\x00\x00\x00" * LARGE,
    ],
)
def test_too_many_fields(data: bytes) -> None:
    with pytest.raises(BadRequest, match="too many fields"):
        check_cost(data, pb.ModelInferRequest, 300)


def test_too_many_numbers() -> None:
    for data in (typed(uint_contents=[1] * (2**21 + 1)), typed(int64_contents=[1] * (2**21 + 1))):
        with pytest.raises(BadRequest, match="too many numbers"):
            check_cost(data, pb.ModelInferRequest, 300)


@pytest.mark.parametrize(
    "end",
    [b"\x3a", b"\x3a\x05four", b"\x3a" + b"\xff" * 12, b"\x80", b"\x3b", b"\x3c", b"\x0d\x00", b"\x09\x00", b"\x10"],
)
def test_malformed(end: bytes) -> None:
    with pytest.raises(BadRequest, match="no message of this method"):
        check_cost(request(raw_input_contents=[bytes(LARGE)]).SerializeToString() + end, pb.ModelInferRequest, 300)


@given(st.binary(max_size=100))
def test_what_protobuf_takes_passes(data: bytes) -> None:
    """Groups, which protobuf knows and nobody sends, are refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_CHECK_FROM_BYTES", 0)
        try:
            pb.ModelInferRequest.FromString(data)
        except DecodeError:
            sound = False
        else:
            sound = True
        if sound and not any(byte & 7 in (3, 4) for byte in data):
            check_cost(data, pb.ModelInferRequest, 300)
        else:
            with suppress(BadRequest):
                check_cost(data, pb.ModelInferRequest, 300)


def test_small_messages_are_not_looked_at() -> None:
    check_cost(b"\x2a\x00" * 100, pb.ModelInferRequest, 1)
