"""The guarded protocol on a real socket, in front of an application of a few lines, and a client of raw bytes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from service.http.connections import Connections
from service.http.protocol import guarded
from service.http.refusing import Refuser
from service.settings import ConnectionSettings
from tests.security.http_shapes import Reply, replies

PATIENT = {"header_timeout_s": 60, "keep_alive_s": 60}


class App:
    """Answers with the path, and the body of a POST; ``/wait`` when it is told to, ``/large`` with 32 MiB."""

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
        content = bytes(2**25) if scope["path"] == "/large" else scope["path"].encode() + b"|" + body
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


async def looked_until(condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds, of which nothing tells."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


Use = Callable[["Served"], Awaitable[None]]


class Served:
    def __init__(self, app: App, port: int, kept: Connections, counted: list[str]) -> None:
        self.app, self.kept, self.counted = app, kept, counted
        self.port = port
        self.stopping = False

    def client(self) -> Client:
        return Client(self.port)

    async def ask(self, *pieces: bytes) -> list[Reply]:
        """What comes on a connection of its own until it is closed."""
        async with self.client() as client:
            await client.send(*pieces)
            return await client.until_closed()


def serve(use: Use, refuser: Refuser | None = None, **given: Any) -> None:
    """Call ``use`` beside a server with ``given`` settings of connections; ``refuser`` says what is refused at once."""

    async def main() -> None:
        counted: list[str] = []
        served: Served | None = None
        kept = Connections(
            ConnectionSettings(**{**PATIENT, **given}), counted.append, lambda: served is not None and served.stopping
        )
        app = App()
        config = uvicorn.Config(
            app,
            "127.0.0.1",
            0,
            http=guarded(kept, refuser),
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            served = Served(app, server.servers[0].sockets[0].getsockname()[1], kept, counted)
            await use(served)
        finally:
            app.go.set()
            await server.shutdown()
        assert len(kept) == 0

    asyncio.run(main())


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
