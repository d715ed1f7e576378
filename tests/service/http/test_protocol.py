"""The protocol, on a real socket: what is a request, how large its head may be, in which order answers come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import Overloaded
from service.http import protocol
from service.http.answers import Answer, error_answer
from service.http.protocol import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, MAX_URI_BYTES
from service.http.refusing import Head
from tests.security.http_shapes import HIDDEN, ONE_REQUEST, SMUGGLING
from tests.service.http.protocol_server import LAST, App, Served, check_refused, get, post, serve

pytestmark = pytest.mark.usefixtures("quick_sweeps")


@pytest.mark.parametrize("shape", SMUGGLING)
def test_what_can_be_read_in_two_ways_is_refused(shape: str) -> None:
    async def use(served: Served) -> None:
        check_refused(await served.ask(SMUGGLING[shape]), 400, "bad_request")
        assert served.app.paths in ([], ["/v1/classify"])  # the second where only its body is wrong
        assert served.counted == ["bad_http"]

    serve(use)


@pytest.mark.parametrize("shape", ONE_REQUEST)
def test_what_is_in_a_request_is_none(shape: str) -> None:
    _, data = ONE_REQUEST[shape]

    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(data)
            assert (await client.reply()).status == 200
            await client.send(b"G" if "behind" in shape else b"x" * 60)
        assert len(served.app.paths) == 1

    serve(use)


@settings(max_examples=25)
@given(st.data())
def test_requests_are_answered_in_order_however_they_come(data: st.DataObject) -> None:
    bodies = data.draw(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies if body) + b"0\r\nX-Trailer: 1\r\n\r\n"
    whole = b"".join(post(f"/{n}", body) for n, body in enumerate(bodies))
    whole += b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
    whole += get("/last", LAST)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    async def use(served: Served) -> None:
        found = await served.ask(*pieces)
        expected = [f"/{n}|".encode() + body for n, body in enumerate(bodies)]
        assert [reply.body for reply in found] == [*expected, b"/chunked|" + b"".join(bodies), b"/last|"]

    serve(use)


# Heads


def test_heads_of_just_the_bounds_are_taken() -> None:
    async def use(served: Served) -> None:
        headers = [f"X-{n}: y" for n in range(MAX_HEADERS - 2)]
        assert [reply.status for reply in await served.ask(get("/", *headers, LAST))] == [200]
        path = "/" + "x" * (MAX_URI_BYTES - 1)
        assert [reply.status for reply in await served.ask(get(path, LAST))] == [200]
        large = [f"X-{n}: " + "y" * 2000 for n in range(15)]
        assert [reply.status for reply in await served.ask(get("/", *large, LAST))] == [200]

    serve(use)


@pytest.mark.parametrize("size", [10**9, 1000, 7])
@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (get("/", *[f"X-{n}: y" for n in range(MAX_HEADERS)]), 431, "head_too_large"),
        (get("/", *["X-Many: " + "y" * 1000] * 40), 431, "head_too_large"),
        (get("/", "X-Long: " + "y" * MAX_HEAD_BYTES), 431, "head_too_large"),
        (get("/", "y" * MAX_HEAD_BYTES + ": x"), 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD_BYTES + 1), 431, "head_too_large"),
        (b"\r\n" * MAX_HEAD_BYTES, 431, "head_too_large"),
        (get("/" + "x" * MAX_URI_BYTES), 414, "uri_too_long"),
        (get("/?" + "x" * 500_000), 414, "uri_too_long"),
    ],
    ids=["number", "sum", "value", "name", "endless", "empty lines", "path", "query"],
)
def test_heads_beyond_the_bounds(head: bytes, status: int, code: str, size: int) -> None:
    if size == 7 and len(head) > 100_000:
        head = head[:100_000]

    async def use(served: Served) -> None:
        pieces = [head[i : i + size] for i in range(0, len(head), size)]
        check_refused(await served.ask(*pieces), status, code)
        assert served.app.paths == []
        assert served.counted == ["head_too_large"]

    serve(use)


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"1;x=", b"0\r\n" + b"X: y\r\n" * 20_000])
def test_what_comes_beside_a_body_is_bounded(start: bytes) -> None:
    async def use(served: Served) -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        found = await served.ask(head + b"1\r\na\r\n", start, *[b"y" * 10_000] * 60)
        check_refused(found, 431, "head_too_large")
        assert served.app.gone == 1

    serve(use)


def test_a_large_body_is_no_large_head() -> None:
    async def use(served: Served) -> None:
        body = b"x" * 3_000_000
        found = await served.ask(post("/", body) + post("/2", body), get("/3", LAST))
        assert [len(reply.body) for reply in found] == [3_000_002, 3_000_003, 3]

    serve(use)


def test_a_trailer_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(served: Served) -> None:
        seen: list[Any] = []
        original = App.__call__

        async def call(self: App, scope: Scope, receive: Receive, send: Send) -> None:
            await original(self, scope, receive, send)
            seen.extend(scope["headers"])

        monkeypatch.setattr(App, "__call__", call)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert len(await served.ask(head + b"0\r\nAuthorization: x\r\n\r\n")) == 1
        assert [name for name, _ in seen] == [b"host", b"connection", b"transfer-encoding"]

    serve(use)


# Answers and refusals behind each other


@pytest.mark.parametrize(
    "broken", [b"\0\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"]
)
@pytest.mark.parametrize("queued", [0, 3])
def test_a_refusal_does_not_overtake_answers(broken: bytes, queued: int) -> None:
    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/wait") + b"".join(get(f"/{n}") for n in range(queued)) + broken + HIDDEN)
            await asyncio.wait_for(served.app.entered.wait(), 10)
            served.app.go.set()
            *answers, refusal = await client.until_closed()
        assert [reply.body for reply in answers] == [b"/wait|", *(f"/{n}|".encode() for n in range(queued))]
        check_refused([refusal], 400, "bad_request")
        assert "/v2" not in served.app.paths

    serve(use)


def test_a_body_that_breaks_off_the_rules_ends_its_request_alone() -> None:
    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await asyncio.wait_for(served.app.entered.wait(), 10)
            await client.send(b"no chunk\r\n")
            check_refused(await client.until_closed(), 400, "bad_request")
        assert served.app.gone == 1

    serve(use)


def test_pipelined_requests_are_bounded() -> None:
    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/wait") + b"".join(get(f"/{n}") for n in range(1000)))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            served.app.go.set()
            *answers, refusal = await client.until_closed()
        assert len(answers) == 1 + MAX_PIPELINED
        assert "too many requests" in check_refused([refusal], 400, "bad_request")
        assert len(served.app.paths) == 1 + MAX_PIPELINED

    serve(use)


def test_a_client_that_leaves_is_told_to_the_request_at_work() -> None:
    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            await asyncio.wait_for(served.app.entered.wait(), 10)
        async with asyncio.timeout(10):
            await served.app.left.wait()

    serve(use)


def test_what_is_overridden_is_there() -> None:
    """uvicorn's protocol is no public interface: a version that names these otherwise must not pass unseen."""
    for name in ("_start_asgi_task", "on_response_complete", "on_header", "on_body", "_should_upgrade"):
        assert hasattr(HttpToolsProtocol, name)
        assert name in vars(protocol.GuardedProtocol)


class Full:
    """Refuses every POST."""

    busy = True

    def refusal(self, method: str, path: str, headers: Head) -> tuple[Answer, str] | None:
        return (error_answer(Overloaded("busy"), "an-id"), "an-id") if method == "POST" else None


def test_a_broken_body_behind_a_refusal_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def use(served: Served) -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        (reply,) = await served.ask(head + b"ZZ\r\n")
        assert reply.status == 429

    serve(use, Full())
    assert not caplog.records


def test_what_is_asked_of_a_service_that_ends_is_not_refused_at_once() -> None:
    """Its answers say that the connection ends, which a refusal at once does not."""

    async def use(served: Served) -> None:
        asked = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
        async with served.client() as client:
            await client.send(asked)
            assert (await client.reply()).status == 429
            served.stopping = True
            await client.send(asked)
            assert (await client.reply()).status == 200

    serve(use, Full())
