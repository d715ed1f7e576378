"""A request for inference, whichever way it came, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadRequest
from service.inference_protocol.tensors import Pixels, shown


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output, by name; with ``classes`` its so many best classes as strings, in place of its values.

    ``binary`` is whether an answer over HTTP has it behind the JSON.
    """

    name: str
    classes: int | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Images, and what is wanted of them; no ``outputs`` are the default ones.

    preprocessed -- the images are pixels as the network takes them, of its size.
    timeout_s    -- what the client gives the service, where it says so.
    """

    images: Sequence[bytes | Pixels]
    outputs: Sequence[RequestedOutput] = ()
    id: str = ""
    preprocessed: bool = False
    timeout_s: float | None = None
    binary: bool = False


def infer_request(
    request_id: str,
    images: Sequence[bytes | Pixels],
    parameters: Mapping[str, Any],
    outputs: Sequence[tuple[Any, Mapping[str, Any]]],
) -> InferRequest:
    """A request of its parts: ``outputs`` are names with their parameters. Parameters we do not know are ignored."""
    preprocessed = _flag(parameters, "preprocessed")
    if preprocessed and isinstance(images[0], bytes):
        raise BadRequest("parameter 'preprocessed': only UINT8 pixels can be the network's input")
    timeout_us = _number(parameters, "timeout")
    binary = _flag(parameters, "binary_data_output")
    requested = [_requested(name, its_own, binary) for name, its_own in outputs]
    names = {output.name for output in requested}
    if len(names) < len(requested):
        raise BadRequest("an output is requested twice")
    return InferRequest(images, requested, request_id, preprocessed, timeout_us / 1e6 if timeout_us else None, binary)


def _requested(name: Any, parameters: Mapping[str, Any], binary: bool) -> RequestedOutput:
    if not isinstance(name, str):
        raise BadRequest("every requested output needs a name")
    no_shared_memory(f"output {shown(name)}", parameters)
    classes = _number(parameters, "classification")
    if classes == 0:
        raise BadRequest(f"output {shown(name)}: parameter 'classification' must be a whole number from 1")
    return RequestedOutput(name, classes, _flag(parameters, "binary_data", default=binary))


def no_shared_memory(what: str, parameters: Mapping[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise BadRequest(f"{what}: shared memory is not supported; send the data in the request")


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"parameter {name!r} must be true or false")
    return value


def _number(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        raise BadRequest(f"parameter {name!r} must be a whole number from 0")
    return value
