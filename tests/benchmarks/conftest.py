"""A tiny HTTP/1.1 server in a thread: what it answers is a function of a request's number."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import pytest

Answer = Callable[[int], Awaitable[bytes | None]]
"""The bytes that answer request number n, from 0; None hangs up instead."""


def http(status: int = 200, body: bytes = b"{}", *headers: bytes) -> bytes:
    """A whole answer with its length."""
    lines = [b"HTTP/1.1 %d Some Reason" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@dataclass
class TinyServer:
    """Its address, and what it has seen."""

    loop: asyncio.AbstractEventLoop
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextmanager
def tiny_server(answer: Answer) -> Iterator[TinyServer]:
    loop = asyncio.new_event_loop()
    server = TinyServer(loop)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                number = len(server.bodies)
                server.heads.append(head)
                server.bodies.append(await reader.readexactly(length))
                answered = await answer(number)
                if answered is None:
                    break
                writer.write(answered)
                if b"connection: close" in answered.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    listening: Future[asyncio.Server] = Future()

    async def listen() -> None:
        listening.set_result(await asyncio.start_server(talk, "127.0.0.1", 0))

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    opened = listening.result(timeout=30)
    server.url = f"http://127.0.0.1:{opened.sockets[0].getsockname()[1]}/classify?top_k=1"
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_end(opened), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


_TURNS = 10
"""More turns of the event loop than asyncio needs to make a talk of a new connection, or to close its socket."""


async def _end(opened: asyncio.Server) -> None:
    opened.close()
    for _ in range(_TURNS):  # a connection that was just taken: cancelled before it is a talk, its socket stays open
        await asyncio.sleep(0)
    talks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for talk in talks:
        talk.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@pytest.fixture
def serve() -> Callable[[Answer], AbstractContextManager[TinyServer]]:
    return tiny_server
