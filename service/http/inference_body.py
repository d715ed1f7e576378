"""The Open Inference Protocol's bodies: JSON, and behind it tensors in binary form.

``Inference-Header-Content-Length`` says how long the JSON is; without it the body is all JSON.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from starlette.datastructures import Headers

from service.errors import BadRequest, BodyTooLarge, UnsupportedEncoding
from service.http.answers import Answer
from service.inference_protocol.inference import InferAnswer, OutputTensor
from service.inference_protocol.requests import InferRequest, infer_request, no_shared_memory
from service.inference_protocol.tensors import INPUT, ImageTensor, Pixels, shown

JSON_LENGTH: Final = "inference-header-content-length"

# A number or a list costs Python some hundred bytes and a moment in which nothing else runs, so both are bounded.
# There are more than that only in pixels as text, which have a better form.
_MAX_VALUES: Final = 2**20
_MAX_LISTS: Final = 2**18
_COUNT_FROM_BYTES: Final = 2**16

_ENCODINGS: Final = ("gzip", "deflate")


def parse_body(headers: Headers, body: bytes, max_bytes: int, max_images: int) -> tuple[InferRequest, int]:
    """The request in ``body``, and how many bytes that has unpacked.

    ``BadRequest``, ``BodyTooLarge`` or ``TooManyImages`` says what is wrong with it.
    """
    view = memoryview(_decompressed(headers.get("content-encoding", "identity").lower(), body, max_bytes))
    length = _json_length(headers, len(view))
    if length == 0:  # Triton's raw binary request: the body is the only tensor's only string
        image = ImageTensor("BYTES", (1,))
        return infer_request("", image.from_strings([bytes(view)]), {}, []), len(view)
    document = _json(view[:length])
    inputs = _list(document, "inputs")
    if len(inputs) != 1:
        raise BadRequest(f"the request has {len(inputs)} inputs; the model takes one, {INPUT!r}")
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise BadRequest("id must be a string")
    outputs = [_object(output, "an output") for output in _list(document, "outputs", absent=[])]
    images = _images(_object(inputs[0], "an input"), view[length:], max_images)
    named = [(output.get("name"), _parameters(output)) for output in outputs]
    return infer_request(request_id, images, _parameters(document), named), len(view)


def _decompressed(encoding: str, body: bytes, max_bytes: int) -> bytes:
    if encoding == "identity":
        return body
    if encoding not in _ENCODINGS:
        raise UnsupportedEncoding(f"Content-Encoding {shown(encoding)} is not taken; taken are {', '.join(_ENCODINGS)}")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by what the data begins with
    try:
        content = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is no {encoding} data") from error
    if len(content) > max_bytes:
        raise BodyTooLarge(f"the body is too large; at most {max_bytes} bytes are taken, unpacked")
    if not inflater.eof:
        raise BadRequest(f"the body's {encoding} data breaks off")
    return content


def _json_length(headers: Headers, total: int) -> int:
    text = headers.get(JSON_LENGTH)
    if text is None:
        if total == 0:
            raise BadRequest("the body is empty; send a request as JSON")
        return total
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("the Inference-Header-Content-Length header is no number")
    if int(text) > total:
        raise BadRequest(f"Inference-Header-Content-Length says {text} bytes of JSON; the body has {total}")
    return int(text)


def _json(text: memoryview) -> Mapping[str, Any]:
    if len(text) > _COUNT_FROM_BYTES:
        characters = np.frombuffer(text, np.uint8)
        if characters.max() > 127:  # one character makes five times its length of a long string
            raise BadRequest("so long a JSON must be all ASCII; images as text are")
        lists = sum(int(np.count_nonzero(characters == ord(bracket))) for bracket in "[{")
        if lists > _MAX_LISTS or int(np.count_nonzero(characters == ord(","))) > _MAX_VALUES:
            raise BadRequest("the JSON has too many values; send large tensors in binary form")
    try:
        return _object(orjson.loads(text), "the body")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error.msg[:80]}, at character {error.pos}") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    return value


def _list(document: Mapping[str, Any], name: str, absent: Any = None) -> list[Any]:
    value = document.get(name, absent)
    if not isinstance(value, list):
        raise BadRequest(f"{name} must be a list")
    return value


def _parameters(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(part.get("parameters", {}), "parameters")


def _images(tensor: Mapping[str, Any], binary: memoryview, max_images: int) -> Sequence[bytes | Pixels]:
    """The images of the only input, which all that is ``binary`` must belong to."""
    header = ImageTensor.checked(tensor.get("name"), tensor.get("datatype"), tensor.get("shape"), max_images)
    parameters = _parameters(tensor)
    no_shared_memory(f"input {INPUT!r}", parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        if len(binary):
            raise BadRequest(f"{len(binary)} bytes follow the JSON, and no input says that they are its data")
        return _of_values(header, tensor.get("data"))
    if type(size) is not int or size != len(binary):
        raise BadRequest(f"binary_data_size is {shown(size)}; {len(binary)} bytes follow the JSON")
    if "data" in tensor:
        raise BadRequest(f"input {INPUT!r}: there are both data and binary_data_size")
    return header.from_binary(binary)


def _of_values(header: ImageTensor, data: Any) -> Sequence[bytes | Pixels]:
    """Images of a tensor's values in JSON, in a row or nested as the shape is."""
    if not isinstance(data, list):
        raise BadRequest(f"input {INPUT!r}: data must be a list")
    if header.datatype == "BYTES":
        return header.from_strings([_base64(number, text) for number, text in enumerate(data)])
    return header.pixels(_flat(data, header.shape))


def _base64(number: int, text: Any) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (TypeError, ValueError) as error:  # not a string; not ASCII, or no base64
        raise BadRequest(
            f"input {INPUT!r}: image {number} is no base64 text, which an encoded image in JSON must be"
        ) from error


def _flat(data: list[Any], shape: Sequence[int]) -> bytes:
    """Numbers of 0 to 255, nested or not, as bytes; nothing here steps through them in Python."""
    values = data
    if values and isinstance(values[0], list):
        if len(values) != shape[0]:
            raise _misshapen(shape)
        for size in shape[1:]:
            if set(map(type, values)) != {list} or set(map(len, values)) != {size}:
                raise _misshapen(shape)
            values = list(chain.from_iterable(values))
    try:
        return bytes(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"input {INPUT!r}: UINT8 data must be whole numbers from 0 to 255") from error


def _misshapen(shape: Sequence[int]) -> BadRequest:
    return BadRequest(f"input {INPUT!r}: the data is not nested as the shape {list(shape)} says; it may be flat, too")


def answer_body(answer: InferAnswer) -> Answer:
    """``answer`` as JSON, its binary outputs behind it."""
    binary: list[bytes] = []
    outputs = [_output(output, binary) for output in answer.outputs]
    document: dict[str, Any] = {"model_name": answer.model_name, "model_version": answer.model_version}
    if answer.id:
        document["id"] = answer.id
    document["outputs"] = outputs
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return Answer(200, text, ((b"content-type", b"application/json"),))
    headers = ((b"content-type", b"application/octet-stream"), (JSON_LENGTH.encode(), b"%d" % len(text)))
    return Answer(200, b"".join([text, *binary]), headers)


def _output(output: OutputTensor, binary: list[bytes]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
    if output.binary:
        data = output.to_bytes()
        binary.append(data)
        return {**described, "parameters": {"binary_data_size": len(data)}}
    if isinstance(output.data, list):
        return {**described, "data": [string.decode() for string in output.data]}
    return {**described, "data": output.data.ravel()}
