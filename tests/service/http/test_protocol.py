"""The protocol, on a real socket, in front of an application of a few lines."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.http import connections as connections_module
from service.http import protocol
from service.http.connections import Connections
from service.http.protocol import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, MAX_URI_BYTES, guarded
from service.settings import ConnectionSettings
from tests.security.http_shapes import HIDDEN, ONE_REQUEST, SMUGGLING, Reply, replies

PATIENT = {"header_timeout_s": 60, "keep_alive_s": 60}


class App:
    """Answers with the path, and the body of a POST; ``/wait`` when it is told to."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.gone = 0
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        self.entered.set()
        body = b""
        if scope["path"] == "/wait":
            await self.go.wait()
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                self.left.set()
                return
            body += message["body"]
            more = message["more_body"]
        content = scope["path"].encode() + b"|" + body
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": content})


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, *pieces: bytes) -> None:
        with suppress(ConnectionError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()

    async def until_closed(self) -> list[Reply]:
        data = b""
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                while more := await self.reader.read(2**16):
                    data += more
        found, rest = replies(data)
        assert not rest
        return found

    async def reply(self) -> Reply:
        """The next one."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await self.reader.readexactly(int(length[1]) if length else 0)
        [reply], _ = replies(head + body)
        return reply


Use = Callable[["Served"], Awaitable[None]]


class Served:
    def __init__(self, app: App, port: int, kept: Connections, counted: list[str]) -> None:
        self.app, self.kept, self.counted = app, kept, counted
        self.port = port

    def client(self) -> Client:
        return Client(self.port)

    async def ask(self, *pieces: bytes) -> list[Reply]:
        """What comes on a connection of its own until it is closed."""
        async with self.client() as client:
            await client.send(*pieces)
            return await client.until_closed()


def serve(use: Use, **given: Any) -> None:
    """Call ``use`` beside a server with ``given`` settings of connections."""

    async def main() -> None:
        counted: list[str] = []
        kept = Connections(ConnectionSettings(**{**PATIENT, **given}), counted.append)
        app = App()
        config = uvicorn.Config(
            app, "127.0.0.1", 0, http=guarded(kept), lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            await use(Served(app, server.servers[0].sockets[0].getsockname()[1], kept, counted))
        finally:
            app.go.set()
            await server.shutdown()
        assert len(kept) == 0

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "_SWEEP_S", 0.02)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


LAST = "Connection: close"


def check_refused(found: list[Reply], status: int, code: str) -> str:
    """The one answer is a refusal in the form of all errors; its message."""
    [reply] = found
    assert reply.status == status, reply
    assert reply.headers[b"connection"] == b"close"
    assert reply.headers[b"content-type"] == b"application/json"
    document = json.loads(reply.body)
    assert document["error"]["code"] == code
    assert document["request_id"] == reply.request_id
    return str(document["error"]["message"])


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


# Times


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", get("/")[:-2]])
def test_a_head_that_does_not_come_is_408(start: bytes) -> None:
    async def use(served: Served) -> None:
        check_refused(await served.ask(start), 408, "slow_client")
        assert served.counted == ["slow_client"]

    serve(use, header_timeout_s=0.05)


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_connection_that_says_nothing_is_closed(before: bytes) -> None:
    async def use(served: Served) -> None:
        assert await served.ask(before) == []
        assert served.counted == []

    serve(use, header_timeout_s=0.05)


def test_a_head_that_trickles_is_408() -> None:
    """However often a byte comes; and what follows the refusal is no request."""

    async def use(served: Served) -> None:
        async with served.client() as client:
            closed = asyncio.create_task(client.until_closed())
            await client.send(b"GET / HTTP/1.1\r\nX: ")
            while not closed.done():
                await client.send(b"y")
                await asyncio.wait([closed], timeout=0.01)
            await client.send(b"\r\n\r\n")
            check_refused(await closed, 408, "slow_client")
        assert served.app.paths == []

    serve(use, header_timeout_s=0.1)


def test_an_idle_connection_is_closed() -> None:
    async def use(served: Served) -> None:
        assert [reply.status for reply in await served.ask(get("/"))] == [200]
        assert [reply.status for reply in await served.ask(get("/"), b"\r\n")] == [200]
        assert served.counted == []

    serve(use, keep_alive_s=0.05)


def test_a_request_at_work_has_time() -> None:
    """All limits of connections have passed: another connection that began later was ended by them."""

    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            for _ in range(3):
                check_refused(await served.ask(b"G"), 408, "slow_client")
            served.app.go.set()
            assert [reply.status for reply in await client.until_closed()] == [200]

    serve(use, header_timeout_s=0.05, keep_alive_s=0.05)


def test_the_rest_of_an_answered_body_has_an_end() -> None:
    async def use(served: Served) -> None:
        found = await served.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nxyz")
        assert [reply.status for reply in found] == [200]

    serve(use, body_idle_s=0.05)


# Numbers


def test_a_connection_beyond_the_bound_takes_the_place_of_one_that_waits() -> None:
    async def use(served: Served) -> None:
        async with served.client() as first, served.client() as second:
            await first.send(get("/first"))
            await first.reply()
            await second.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            async with served.client() as third:
                await third.send(get("/third"))
                assert (await third.reply()).body == b"/third|"
                assert await first.until_closed() == []
                served.app.go.set()
                assert (await second.reply()).body == b"/wait|"
        assert served.counted == ["connections"]

    serve(use, max_connections=2)


def test_where_all_are_in_use_only_probes_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "_SPARE", 1)

    async def use(served: Served) -> None:
        async with served.client() as busy:
            await busy.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            async with served.client() as spare:
                await spare.send(get("/readyz"))
                assert (await spare.reply()).body == b"/readyz|"
                await spare.send(get("/x"))
                [refusal] = await spare.until_closed()
            assert (refusal.status, refusal.headers[b"retry-after"]) == (503, b"1")
            assert json.loads(refusal.body)["error"]["code"] == "too_many_connections"
            served.app.go.set()
            assert (await busy.reply()).status == 200
        assert served.app.paths == ["/wait", "/readyz"]

    serve(use, max_connections=1)


def test_files_are_allowed_as_far_as_they_may_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [100, 2000]
    monkeypatch.setattr(connections_module.resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(connections_module.resource, "setrlimit", lambda _, to: limits.__setitem__(slice(2), to))
    connections_module.allow_files(1000)
    assert limits == [1000 + 64 + 512, 2000]
    connections_module.allow_files(10)
    assert limits == [1000 + 64 + 512, 2000]
    assert not caplog.messages
    connections_module.allow_files(5000)
    assert limits == [2000, 2000]
    assert "RESNET_MAX_CONNECTIONS=5000" in caplog.text


def test_what_is_overridden_is_there() -> None:
    """uvicorn's protocol is no public interface: a version that names these otherwise must not pass unseen."""
    for name in ("_start_asgi_task", "on_response_complete", "on_header", "on_body", "_should_upgrade"):
        assert hasattr(HttpToolsProtocol, name)
        assert name in vars(protocol.GuardedProtocol)
