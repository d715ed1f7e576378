from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest, ServiceError, TooManyImages
from service.inference_protocol.tensors import ImageTensor, join_strings, shown, split_strings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def test_encoded_images_and_pixels() -> None:
    header = ImageTensor.checked("image", "BYTES", [2], 4)
    assert header.from_binary(join_strings([b"one", b"two"])) == [b"one", b"two"]
    header = ImageTensor.checked("image", "UINT8", [2, 1, 2, 3], 4)
    first, second = header.from_binary(bytes(range(12)))
    np.testing.assert_array_equal(first, np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    np.testing.assert_array_equal(second, np.arange(6, 12, dtype=np.uint8).reshape(1, 2, 3))


def test_pixels_are_not_copied() -> None:
    data = bytes(12)
    (image,) = ImageTensor("UINT8", (1, 2, 2, 3)).from_binary(memoryview(data))
    assert image.ctypes.data == np.frombuffer(data, np.uint8).ctypes.data  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "says"),
    [
        ("picture", "BYTES", [1], "unknown input 'picture'"),
        (None, "BYTES", [1], "unknown input NoneType"),
        ("image", "FP32", [1, 2, 2, 3], "datatype 'FP32' is not taken"),
        ("image", "bytes", [1], "datatype 'bytes' is not taken"),
        ("image", "BYTES", [1, 1], "must have the shape [n]"),
        ("image", "BYTES", [], "must have the shape [n]"),
        ("image", "BYTES", [0], "has no image"),
        ("image", "BYTES", [-1], "whole numbers from 0"),
        ("image", "BYTES", [1.0], "whole numbers from 0"),
        ("image", "BYTES", [True], "whole numbers from 0"),
        ("image", "BYTES", 1, "whole numbers from 0"),
        ("image", "BYTES", "1", "whole numbers from 0"),
        ("image", "BYTES", None, "whole numbers from 0"),
        ("image", "UINT8", [1, 2, 3], "must have the shape [n, height, width, 3]"),
        ("image", "UINT8", [1, 2, 2, 4], "must have the shape [n, height, width, 3]"),
        ("image", "UINT8", [1, 0, 2, 3], "has no image"),
    ],
)
def test_a_wrong_header_is_told(name: object, datatype: object, shape: object, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ImageTensor.checked(name, datatype, shape, 4)
    assert says in caught.value.message


def test_too_many_images() -> None:
    with pytest.raises(TooManyImages):
        ImageTensor.checked("image", "BYTES", [5], 4)


@pytest.mark.parametrize("shape", [(1, 2**32, 2**32, 3), (1, 2**62, 2, 3), (1, 2**1000, 1, 3), (1, 2, 1, 3)])
def test_a_shape_that_the_data_does_not_have(shape: tuple[int, ...]) -> None:
    """2 ** 64 and what a 64-bit product would make of it are told apart."""
    with pytest.raises(BadRequest, match="the data has 3"):
        ImageTensor.checked("image", "UINT8", list(shape), 4).from_binary(bytes(3))


@pytest.mark.parametrize(
    "data",
    [
        b"\1",
        b"\1\0\0",
        struct.pack("<I", 5) + b"four",
        struct.pack("<I", 2**32 - 1) + b"four",
        join_strings([b"one"]),
        join_strings([b"one", b"two", b"three"]),
        join_strings([b"one", b""]),
        b"",
    ],
)
def test_lengths_that_lie(data: bytes) -> None:
    with pytest.raises(BadRequest):
        ImageTensor("BYTES", (2,)).from_binary(data)


@given(st.lists(st.binary(min_size=1), min_size=1))
def test_strings_come_back(strings: list[bytes]) -> None:
    assert split_strings(join_strings(strings), len(strings)) == strings


@given(ANYTHING, ANYTHING, ANYTHING, st.binary())
def test_any_header_is_an_image_or_an_error_of_ours(name: object, datatype: object, shape: object, data: bytes) -> None:
    for known in ("BYTES", "UINT8", datatype):
        with suppress(ServiceError):
            header = ImageTensor.checked("image" if name != "other" else name, known, shape, 4)
            assert len(header.from_binary(data)) == header.shape[0]


@given(st.lists(st.integers(0, 5) | st.integers(), min_size=4, max_size=4), st.binary(max_size=200))
def test_any_shape_and_data(shape: list[int], data: bytes) -> None:
    with suppress(ServiceError):
        images = ImageTensor.checked("image", "UINT8", [*shape[:3], 3], 64).from_binary(data)
        assert sum(image.nbytes for image in images) == len(data)  # type: ignore[union-attr]


@given(ANYTHING)
def test_what_is_shown_is_short(value: object) -> None:
    assert len(shown(value)) <= 80
