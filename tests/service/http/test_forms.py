"""Files of a multipart form: whole, in pieces, and in every wrong way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from service.errors import BadRequest, ServiceError, TooManyImages
from service.http.forms import FormFiles
from tests.service.http.conftest import BOUNDARY, form, split

END = f"--{BOUNDARY}--\r\n".encode()


def part(content: bytes, disposition: str = 'form-data; name="image"; filename="a.png"') -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


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
