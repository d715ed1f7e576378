"""Bodies: read within their bounds, and taken apart where they hold many images; forms are in test_forms.py."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Receive

from service.batching.gate import Gate
from service.errors import BadRequest, BodyTooLarge, Overloaded, ServiceError, TooManyImages, UnsupportedEncoding
from service.http.bodies import ClientGone, check_encoding, read_body
from service.http.routing import Call
from tests.service.http.conftest import form, split


def read(messages: list[dict[str, Any]], max_bytes: int, **headers: str) -> bytes:
    given = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    call = Call("POST", given, b"", inbox(messages), math.inf, "")
    return asyncio.run(read_body(call, max_bytes, idle_s=60))


def inbox(messages: list[dict[str, Any]]) -> Receive:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def chunks(*pieces: bytes) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces)} for i, piece in enumerate(pieces, start=1)
    ]


# Reading


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.integers(0, 300), st.integers(0, 300))
def test_bytes_are_held_as_they_come_and_within_both_bounds(pieces: list[bytes], most: int, room: int) -> None:
    gate = Gate(1, room)
    given = Call("POST", Headers(), b"", inbox(chunks(*pieces)), math.inf, "")
    size = len(b"".join(pieces))
    with gate.admit() as ticket:
        try:
            assert asyncio.run(read_body(given, most, 60, ticket)) == b"".join(pieces)
            assert size <= min(most, room)
            assert gate.bytes == size
        except BodyTooLarge:
            assert size > most
        except Overloaded:
            assert size > room
        assert gate.bytes <= min(room, size)
    assert gate.bytes == 0


@pytest.mark.parametrize("given", [["gzip"], ["identity", "br"], ["identity, gzip"], ["x-unknown"], ["chunked"]])
def test_an_encoding_is_refused(given: list[str]) -> None:
    with pytest.raises(UnsupportedEncoding):
        check_encoding(Headers(raw=[(b"content-encoding", value.encode()) for value in given]))


@pytest.mark.parametrize("given", [[], ["identity"], [" Identity "], [""]])
def test_no_encoding_is_taken(given: list[str]) -> None:
    check_encoding(Headers(raw=[(b"content-encoding", value.encode()) for value in given]))


def test_a_pause_ends_the_call_and_a_body_that_goes_on_does_not() -> None:
    """The call's timer is told of every pause, and of the deadline again at the end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 3600
        told: list[float] = []

        async def receive() -> dict[str, Any]:
            assert call.timer is not None
            assert call.reading
            told.append(call.timer.when() or 0.0)
            return left.pop(0)

        left = chunks(b"x", b"y", b"z")
        call = Call("POST", Headers(), b"", receive, deadline, "")
        async with asyncio.timeout_at(deadline) as call.timer:
            assert await read_body(call, 10, idle_s=60) == b"xyz"
            assert call.timer.when() == deadline
            assert not call.reading
        assert len(told) == 3
        assert all(loop.time() <= when <= loop.time() + 60 for when in told)

        left = chunks(b"x")
        async with asyncio.timeout_at(deadline) as call.timer:
            call.begin_reading(60)  # what came before, some time ago
            await read_body(call, 10, idle_s=7200)  # longer than there is
        assert told[-1] == deadline

    asyncio.run(main())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.integers(0, 300))
def test_the_body_is_its_pieces_or_too_large(pieces: list[bytes], limit: int) -> None:
    body = b"".join(pieces)
    if len(body) <= limit:
        assert read(chunks(*pieces), limit) == body
        assert read(chunks(*pieces), limit, content_length=str(len(body))) == body
    else:
        for headers in ({}, {"content_length": str(len(body))}, {"content_length": "0"}):
            with pytest.raises(BodyTooLarge, match=str(limit)):
                read(chunks(*pieces), limit, **headers)


def test_no_more_is_read_once_it_is_too_large() -> None:
    messages = chunks(b"x" * 10, b"y" * 10, b"z" * 10)
    with pytest.raises(BodyTooLarge):
        read(messages[:2], 15)
    with pytest.raises(BodyTooLarge):
        read([], 15, content_length="16")


def test_a_client_that_leaves() -> None:
    with pytest.raises(ClientGone):
        read([{"type": "http.disconnect"}], 10)
    with pytest.raises(ClientGone):
        read([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}], 10)


def test_messages_may_leave_out_what_is_empty() -> None:
    assert read([{"type": "http.request"}], 10) == b""


@pytest.mark.parametrize("length", ["abc", "", "1.5", "²", "0x10", "5, 5"])
def test_a_content_length_that_is_no_number_is_a_bad_request(length: str) -> None:
    with pytest.raises(BadRequest):
        read(chunks(b"x"), 10, content_length=length)


# Splitting


def test_a_body_of_any_other_type_is_one_image() -> None:
    for headers in (Headers({}), form("image/png"), form("application/x-www-form-urlencoded"), form("multipartish")):
        assert split(b"data", headers) == [b"data"]


def test_an_empty_body() -> None:
    for headers in (Headers({}), form(), form("image/png")):
        with pytest.raises(BadRequest, match="empty"):
            split(b"", headers)


# JSON
JSON = Headers({"content-type": "application/json"})


def as_json(*images: bytes) -> bytes:
    return orjson.dumps({"images": [base64.b64encode(image).decode() for image in images]})


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6), st.sampled_from([None, 2]))
def test_images_of_json_come_back_in_order(images: list[bytes], indent: int | None) -> None:
    assert split(as_json(*images), JSON) == images
    pretty = json.dumps(json.loads(as_json(*images)), indent=indent).replace("/", "\\/").encode()
    assert split(pretty, JSON) == images


@pytest.mark.parametrize(
    "text", ['{"images": ["\\/\\/8="]}', '{"images": ["\\u002f\\u002F8="]}', '{"images": ["//8="]}']
)
def test_escapes_that_encoders_use_are_taken(text: str) -> None:
    assert split(text.encode(), Headers({"content-type": "application/json"})) == [b"\xff\xff"]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", " application/json ;x=y"])
def test_content_types_of_json(kind: str) -> None:
    assert split(as_json(b"x"), form(kind)) == [b"x"]


@pytest.mark.parametrize("kind", ["application/jsonl", "text/json", "application/problem+json"])
def test_other_types_are_no_json(kind: str) -> None:
    assert split(as_json(b"x"), form(kind)) == [as_json(b"x")]


@given(images=st.integers(1, 6), most=st.integers(1, 5))
def test_too_many_images_of_json(images: int, most: int) -> None:
    body = as_json(*[b"x"] * images)
    if images <= most:
        assert split(body, JSON, most) == [b"x"] * images
    else:
        with pytest.raises(TooManyImages, match=str(most)):
            split(body, JSON, most)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"{", "malformed at line 1 column"),
        (b'{"images": ["AAAA"]} x', "malformed at line 1 column 22"),
        (b'{"images": ["AAAA",]}', "malformed"),
        (b"\xff\xfe", "not all ASCII"),
        (b'{"images": ["\xff"]}', "not all ASCII"),
        (b"[" * 5000, "malformed"),
        (b"[]", 'no list "images"'),
        (b"null", 'no list "images"'),
        (b'"AAAA"', 'no list "images"'),
        (b"{}", 'no list "images"'),
        (b'{"images": "AAAA"}', 'no list "images"'),
        (b'{"images": {"0": "AAAA"}}', 'no list "images"'),
        (b'{"image": ["AAAA"]}', 'no list "images"'),
        (b'{"images": ["AAAA"], "top_k": 3}', "unknown field 'top_k'"),
        (b'{"' + b"x" * 5000 + b'": 1, "images": ["AAAA"]}', "unknown field 'xxx"),
        (b'{"images": []}', "no image"),
        (b'{"images": [1]}', r"images\[0\] is no string"),
        (b'{"images": ["AAAA", null]}', r"images\[1\] is no string"),
        (b'{"images": ["AAAA", [[]]]}', r"images\[1\] is no string"),
        (b'{"images": [""]}', r"images\[0\] is empty"),
        (b'{"images": ["AAAA", "AAA"]}', r"images\[1\] is no padded base64"),
        (b'{"images": ["AAA=="]}', r"images\[0\]"),
        (b'{"images": ["AA=A"]}', r"images\[0\]"),
        (b'{"images": ["AAAA="]}', r"images\[0\]"),
        (b'{"images": ["AAAA===="]}', r"images\[0\]"),
        (b'{"images": ["===="]}', r"images\[0\]"),
        (b'{"images": ["=AAA"]}', r"images\[0\]"),
        (b'{"images": ["AA AA"]}', r"images\[0\]"),
        (b'{"images": ["AAAA\\n"]}', r"images\[0\]"),
        (b'{"images": ["AA-_"]}', r"images\[0\]"),
        (b'{"images": ["\\u0000AAA"]}', r"images\[0\]"),
        (b'{"images": ["\\u00e9AAA"]}', r"images\[0\]"),
        (b'{"images": ["data:image/png;base64,AAAA"]}', "leave out what comes before the comma"),
        (b'{"images": ["https://example.com/a.png"]}', r"images\[0\]"),
    ],
)
def test_json_that_holds_no_images_is_a_bad_request(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        split(body, JSON)
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


def test_small_things_in_great_number_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million empty lists take two megabytes as text and sixty in memory."""
    monkeypatch.setattr(orjson, "loads", lambda _: pytest.fail("parsed"))
    with pytest.raises(TooManyImages):
        split(b'{"images": [' + b"[]," * 1_000_000 + b"[]]}", JSON)


@given(
    st.binary(max_size=100) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: orjson.dumps({"images": v}))
)
def test_arbitrary_json_raises_nothing_but_service_errors(body: bytes) -> None:
    try:
        images = split(body, JSON)
    except ServiceError:
        return
    assert images
    assert all(isinstance(image, bytes) and image for image in images)
