from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import BadRequest, ImageTooLarge, TooManyImages
from service.http.bodies import split_images
from service.http.json_images import unpack
from service.jobs.inputs import Input

MAX_BYTES = 10**6


def unpacked(path: Path, text: bytes, max_images: int = 100, max_image_bytes: int = MAX_BYTES) -> list[bytes]:
    file = path / "input"
    file.write_bytes(text)
    contents = unpack(file, max_images, max_image_bytes)
    data = file.read_bytes()
    assert [image.name for image in contents.images] == [None] * len(contents.images)
    assert sum(image.length for image in contents.images) == len(data), "nothing else is left in the file"
    return [data[image.start : image.start + image.length] for image in contents.images]


def encoded(*images: bytes) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


@given(images=st.lists(st.binary(min_size=1), min_size=1, max_size=5), indent=st.sampled_from([None, 0, 3, "\t"]))
def test_images_are_the_same_as_a_requests(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes], indent: Any
) -> None:
    text = json.dumps({"images": encoded(*images)}, indent=indent).encode()
    assert unpacked(tmp_path_factory.mktemp("json"), text) == images
    assert split_images(Headers({"content-type": "application/json"}), text, 5) == images


def test_many_large_ones(tmp_path: Path) -> None:
    images = [bytes([i]) * 300_000 for i in range(10)]
    assert unpacked(tmp_path, json.dumps({"images": encoded(*images)}).encode()) == images


def test_slashes_may_be_escaped(tmp_path: Path) -> None:
    (text,) = encoded(b"\xff\xff\xff")
    assert text == "////"
    assert unpacked(tmp_path, rb'{"images":["\/\/\/\/"]}') == [b"\xff\xff\xff"]


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"null",
        b" ",
        b'{"images":[]}',
        b'{"images":"AAAA"}',
        b'{"images":["AAAA"',
        b'{"images":["AAAA',
        b'{"images":["AAAA"]',
        b'{"images":["AAAA",]}',
        b'{"images":["AAAA"]} {}',
        b'{"images":["AAAA" "AAAA"]}',
        b'{"images":["AAAA"],"more":1}',
        b'{"other":["AAAA"]}',
        b'{"images":[1]}',
        b'{"images":["AAAA",null]}',
        b'{"images":[["AAAA"]]}',
        b'{"images":["\\x"]}',
        b'{"images":["\x01"]}',
        b'{"images":["\xff"]}',
        b'{"images":["AAA"]}',
        b'{"images":["AA AA"]}',
        b'{"images":["data:image/png;base64,AAAA"]}',
        b'{"images":[""]}',
    ],
)
def test_all_else_is_refused_as_a_request_refuses_it(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(BadRequest):
        unpacked(tmp_path, text)
    with pytest.raises(BadRequest):
        split_images(Headers({"content-type": "application/json"}), text, 5)


def test_which_one_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"images\[2\]"):
        unpacked(tmp_path, b'{"images":["AAAA","AAAA","A"]}')


def test_too_many(tmp_path: Path) -> None:
    text = json.dumps({"images": ["AAAA"] * 4}).encode()
    assert len(unpacked(tmp_path, text, 4)) == 4
    with pytest.raises(TooManyImages, match="at most 3"):
        unpacked(tmp_path, text, 3)


def test_one_far_too_large_is_told_by_its_length_and_never_in_memory(tmp_path: Path) -> None:
    small, large = b"a small one", bytes(8 * 2**20)
    file = tmp_path / "input"
    file.write_bytes(json.dumps({"images": encoded(small, large, small)}).encode())
    tracemalloc.start()
    try:
        contents = unpack(file, 3, MAX_BYTES)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**20
    with Input(file, contents, 3, MAX_BYTES) as opened:
        first, second, third = opened.read(0, 3, 10**9)
    assert (first, third) == (small, small)
    assert isinstance(second, ImageTooLarge)


def test_the_largest_that_is_taken_may_be_all_escaped(tmp_path: Path) -> None:
    text = rb'{"images":["' + rb"\/" * 400 + rb'"]}'
    assert unpacked(tmp_path, text, max_image_bytes=300) == [b"\xff" * 300]
