from __future__ import annotations

import asyncio
import base64
import itertools
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
from service.http.bodies import ClientGone, check_encoding, read_body, split_images
from service.http.forms import FormFiles
from service.http.routing import Call

BOUNDARY = "b0undary"


def form(content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Headers:
    return Headers({"content-type": content_type})


def part(content: bytes, disposition: str = 'form-data; name="image"; filename="a.png"') -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def split(body: bytes, headers: Headers | None = None, max_images: int = 64) -> list[bytes]:
    return split_images(form() if headers is None else headers, body, max_images)


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


_CONTENTS = st.binary(max_size=200).filter(lambda content: b"\r\n--" + BOUNDARY.encode() not in b"\r\n" + content)


class Collected(FormFiles):
    """The files of a form that comes in pieces."""

    def __init__(self, headers: Headers) -> None:
        super().__init__(headers, 64)
        self.files: list[bytes] = []

    def begin(self, name: str) -> None:
        self.files.append(b"")

    def data(self, data: bytes) -> None:
        self.files[-1] += data

    def end(self) -> None:
        pass


NEAR_ENDS = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"--", b"\r\n--", f"\r\n--{BOUNDARY[:-1]}".encode(), b"\r\n\r\n", b"x"]
)


@given(
    st.lists(st.lists(NEAR_ENDS | st.binary(max_size=20), max_size=6).map(b"".join), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=10),
)
def test_a_form_is_the_same_in_any_pieces(contents: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(part, contents)) + END
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    collected = Collected(form())
    for a, b in itertools.pairwise(edges):
        collected.feed(body[a:b])
    collected.check_ended()
    assert collected.files == contents == split(body)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6), st.integers(0, 400))
def test_a_broken_form_is_refused_alike_in_any_pieces(noise: bytes, cuts: list[int], at: int) -> None:
    whole = part(b"one") + part(b"two") + END
    body = whole[:at] + noise + whole[at:]

    def taken(pieces: list[bytes]) -> list[bytes] | None:
        collected = Collected(form())
        try:
            for piece in pieces:
                collected.feed(piece)
            collected.check_ended()
        except ServiceError:
            return None
        return collected.files

    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    assert taken([body]) == taken([body[a:b] for a, b in itertools.pairwise(edges)])


@pytest.mark.parametrize("length", [71, 257, 5000])
def test_a_boundary_that_is_too_long(length: int) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        split(END, form(f"multipart/form-data; boundary={'b' * length}"))


@pytest.mark.parametrize(
    "lines",
    [
        ['Content-Disposition: form-data; name="image"; filename="' + "n" * 4100 + '"'],
        ['Content-Disposition: form-data; name="' + "n" * 4100 + '"; filename="a"'],
        ["X" * 4200 + ": y", 'Content-Disposition: form-data; name="image"; filename="a"'],
        ["X: y"] * 8 + ['Content-Disposition: form-data; name="image"; filename="a"'],
        ["X: y"] * 50_000,
    ],
    ids=["filename", "name", "header", "nine", "many"],
)
def test_the_headers_of_a_part_are_bounded(lines: list[str]) -> None:
    head = "\r\n".join([f"--{BOUNDARY}", *lines, "", ""]).encode()
    with pytest.raises(BadRequest, match="malformed"):
        split(head + b"content\r\n" + END)


@given(st.lists(_CONTENTS, min_size=1, max_size=6))
def test_files_come_back_in_order(contents: list[bytes]) -> None:
    assert split(b"".join(map(part, contents)) + END) == contents


@given(contents=st.lists(_CONTENTS, min_size=1, max_size=6), most=st.integers(1, 5))
def test_too_many_files(contents: list[bytes], most: int) -> None:
    body = b"".join(map(part, contents)) + END
    if len(contents) <= most:
        assert split(body, max_images=most) == contents
    else:
        with pytest.raises(TooManyImages, match=str(most)):
            split(body, max_images=most)


@pytest.mark.parametrize(
    "content_type",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data; Boundary={BOUNDARY}",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
        f"multipart/form-data; charset=no-such-thing; boundary={BOUNDARY}",
        f"multipart/mixed; boundary={BOUNDARY}",
    ],
)
def test_forms_of_the_content_type(content_type: str) -> None:
    assert split(part(b"data") + END, form(content_type)) == [b"data"]


def test_a_file_larger_than_any_default_is_kept_in_memory() -> None:
    content = b"\xff\xd8" * 2_000_000
    assert split(part(content) + END) == [content]


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (part(b"x") + END, form("multipart/form-data"), "boundary"),
        (part(b"x") + END, form("multipart/form-data; boundary="), "multipart"),
        (part(b"x") + END, form("multipart/form-data; boundary=other"), "multipart"),
        (b"junk", form(), "multipart"),
        (END, form(), "no file"),
        (part(b"5", 'form-data; name="top_k"') + END, form(), "top_k"),
        (part(b"x") + part(b"5", 'form-data; name="top_k"') + END, form(), "top_k"),
        (part(b"x" * 2**21, 'form-data; name="big"') + END, form(), "multipart"),
        (part(b"x", "form-data") + END, form(), "name"),
        (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, form(), "name"),
        (f"--{BOUNDARY}\r\nno header\r\n\r\nx\r\n".encode() + END, form(), "multipart"),
        (b"--" + BOUNDARY.encode() + b"\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n", form(), "multipart"),
    ],
)
def test_what_cannot_be_split_is_a_bad_request(body: bytes, headers: Headers, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        split(body, headers)
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kept", [1, 2])
def test_a_form_that_breaks_off_is_a_bad_request(kept: int) -> None:
    """Its last file is not whole: neither to be classified as it is, nor to be left out without a word."""
    whole = part(b"first") * kept + part(b"the last one") + END
    for length in (len(whole) - len(END) - 8, len(whole) - len(END), len(whole) - len(END) + 3):
        with pytest.raises(BadRequest):
            split(whole[:length])


@pytest.mark.parametrize("kind", ["image/jpeg", "IMAGE/png", "application/octet-stream"])
def test_a_file_without_a_name_is_known_by_its_type(kind: str) -> None:
    """RFC 7578, 4.2: a file's part need not have a filename."""
    typed = f'form-data; name="image"\r\nContent-Type: {kind}'
    assert split(part(b"1", typed) + part(b"2") + END) == [b"1", b"2"]


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_an_option_is_no_file(kind: str) -> None:
    typed = f'form-data; name="top_k"\r\nContent-Type: {kind}'
    image = part(b"1", 'form-data; name="image"\r\nContent-Type: image/png')  # whose type is not the next part's
    for option in (part(b"2", typed), part(b"2", 'form-data; name="top_k"')):
        with pytest.raises(BadRequest, match="'top_k' is no file"):
            split(image + option + END)


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                part(b"x"),
                END,
                b"\r\n",
                b"--",
                BOUNDARY.encode(),
                b"\x00:",
                b"Content-Disposition: form-data; name=a; filename*=utf-8''x\r\n\r\n",
            ]
        )
    ).map(b"".join)
)
def test_arbitrary_forms_raise_nothing_but_service_errors(body: bytes) -> None:
    try:
        images = split(body)
    except ServiceError:
        return
    assert images
    assert all(isinstance(image, bytes) for image in images)


@given(st.text(max_size=40))
def test_arbitrary_content_types_raise_nothing_but_service_errors(text: str) -> None:
    headers = Headers(raw=[(b"content-type", ("multipart/form-data;" + text).encode("utf-8", "replace"))])
    try:
        split(part(b"x") + END, headers)
    except ServiceError:
        return


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
