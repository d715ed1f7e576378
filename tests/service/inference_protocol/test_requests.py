from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.errors import BadRequest
from service.inference_protocol.requests import RequestedOutput, infer_request

IMAGES = [np.zeros((2, 2, 3), np.uint8)]


def test_parameters() -> None:
    outputs: list[tuple[Any, dict[str, Any]]] = [
        ("logits", {}),
        ("cam", {"binary_data": False, "unknown": 1}),
        ("probabilities", {"classification": 3}),
    ]
    parameters = {"preprocessed": True, "timeout": 250_000, "binary_data_output": True, "sequence_id": 7}
    request = infer_request("an-id", IMAGES, parameters, outputs)
    assert request.outputs == [
        RequestedOutput("logits", None, True),
        RequestedOutput("cam", None, False),
        RequestedOutput("probabilities", 3, True),
    ]
    assert (request.id, request.preprocessed, request.timeout_s, request.binary) == ("an-id", True, 0.25, True)


def test_a_timeout_of_zero_is_none() -> None:
    assert infer_request("", IMAGES, {"timeout": 0}, []).timeout_s is None


@pytest.mark.parametrize(
    ("parameters", "outputs", "says"),
    [
        ({"preprocessed": 1}, [], "parameter 'preprocessed' must be true or false"),
        ({"binary_data_output": "yes"}, [], "parameter 'binary_data_output' must be true or false"),
        ({"timeout": -1}, [], "parameter 'timeout' must be a whole number"),
        ({"timeout": 1.5}, [], "parameter 'timeout' must be a whole number"),
        ({"timeout": True}, [], "parameter 'timeout' must be a whole number"),
        ({"timeout": 2**63}, [], "parameter 'timeout' must be a whole number"),
        ({}, [(None, {})], "every requested output needs a name"),
        ({}, [("logits", {"classification": 0})], "must be a whole number from 1"),
        ({}, [("logits", {"classification": "3"})], "'classification' must be a whole number"),
        ({}, [("logits", {"binary_data": None})], "'binary_data' must be true or false"),
        ({}, [("logits", {"shared_memory_region": "r"})], "shared memory is not supported"),
        ({}, [("logits", {}), ("logits", {"classification": 2})], "an output is requested twice"),
    ],
)
def test_a_wrong_parameter_is_told(parameters: dict[str, Any], outputs: list[Any], says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        infer_request("", IMAGES, parameters, outputs)
    assert says in caught.value.message


def test_encoded_images_are_not_preprocessed() -> None:
    with pytest.raises(BadRequest, match="only UINT8 pixels"):
        infer_request("", [b"a file"], {"preprocessed": True}, [])
