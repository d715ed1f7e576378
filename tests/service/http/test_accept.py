from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Message

from service.errors import NotAcceptable
from service.http.accept import choose
from service.http.routing import Call

JSON, FLOATS, PNG = "application/json", "application/octet-stream", "image/png"
OFFERED = (JSON, FLOATS, PNG)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("  ", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (FLOATS, FLOATS),
        ("Image/PNG", PNG),
        ("image/*", PNG),
        ("application/*", JSON),
        ("image/png;q=1.0", PNG),
        ("image/png; charset=utf-8", PNG),
        ("image/png;version=2;q=0.5, application/json;q=0.4", PNG),
        # The best weight, and the first on offer of equal ones.
        (f"{JSON};q=0.1, {PNG};q=0.9", PNG),
        (f"{PNG}, {JSON}", JSON),
        (f"{PNG};q=0.5,{FLOATS};q=0.5", FLOATS),
        # The closest range decides, not the kindest (RFC 9110, 12.5.1).
        (f"*/*;q=0.9, {JSON};q=0.1", FLOATS),
        (f"*/*, application/*;q=0.2, {FLOATS};q=0.3", PNG),
        (f"*/*;q=0.5, {JSON};q=0", FLOATS),
        ("application/*;q=0, */*;q=0.001", PNG),
        # A browser's.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", JSON),
        # What is no media range is passed over.
        ("nonsense, image/png", PNG),
        ("*/png, image/png", PNG),
        (", ,image/png,", PNG),
        (f"{JSON};q=2, {PNG};q=0.5", PNG),
        (f"{JSON};q=0.1234, {PNG};q=0.5", PNG),
        (f"{JSON};q=, {PNG};q=0.5", PNG),
    ],
)
def test_the_type_that_the_client_likes_best(accept: str | None, chosen: str) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    "accept", ["text/html", "image/jpeg", "text/*", f"{JSON};q=0", "*/*;q=0", "*/*;q=0.0", "nonsense", "*", "json"]
)
def test_what_cannot_be_had(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json, image/png"):
        choose(accept, (JSON, PNG))


def test_the_first_on_offer_is_the_default() -> None:
    assert choose("*/*", (PNG, JSON)) == PNG


@given(st.text(max_size=60) | st.lists(st.sampled_from([*OFFERED, "*/*", ";q=", "0.5", ",", ";", "q"])).map("".join))
def test_whatever_a_client_sends(accept: str) -> None:
    try:
        chosen = choose(accept, OFFERED)
    except NotAcceptable:
        return
    assert chosen in OFFERED


def test_several_lines_are_one_list() -> None:
    async def receive() -> Message:
        raise AssertionError("nobody reads")

    def accept(*lines: bytes) -> str | None:
        return Call("POST", Headers(raw=[(b"accept", line) for line in lines]), b"", receive, 0.0, "id").accept

    assert accept() is None
    assert choose(accept(b"text/html", b"image/png;q=0.9"), OFFERED) == PNG
