"""Refusals of the protocol, over a real socket: the connection stays in step whatever the request brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.errors import Overloaded
from service.http.answers import Answer, error_answer
from service.http.refusing import Head, RefusingProtocol

Ask = Callable[[bytes, int], Awaitable[list[bytes]]]


class Refuser:
    """Refuses ``/full`` while it is busy."""

    def __init__(self) -> None:
        self.busy = True
        self.refused: list[tuple[str, str]] = []

    def refusal(self, method: str, path: str, headers: Head) -> tuple[Answer, str] | None:
        if path != "/full":
            return None
        self.refused.append((method, path))
        return error_answer(Overloaded("busy"), "an-id"), "an-id"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message["body"]), message.get("more_body", False)
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def talk(refuser: Refuser, *sent: bytes) -> list[tuple[int, bytes]]:
    """The answers on one connection to all that is sent on it, each piece a while after the one before."""

    async def run() -> list[tuple[int, bytes]]:
        config = uvicorn.Config(
            app,
            http=type("Refusing", (RefusingProtocol,), {"refuser": refuser}),
            lifespan="off",
            log_config=None,
            port=0,
        )
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            port = server.servers[0].sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in sent:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)  # sent apart; the answers are the same either way
            writer.write_eof()
            answers = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        finally:
            server.should_exit = True
            await server.shutdown()
        return parsed(answers)

    return asyncio.run(run())


def parsed(answers: bytes) -> list[tuple[int, bytes]]:
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        status = int(head[9:12])
        assert (b"retry-after" in fields) == (status == 429)
        found.append((status, rest[:length]))
        answers = rest[length:]
    return found


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


LAST = post("/other", b"ab", "Connection: close")
FORGED = post("/other", b"forged")


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_the_body_of_what_is_refused_is_no_request(pieces: int) -> None:
    refuser = Refuser()
    stream = post("/full?top_k=1", FORGED) + post("/full", FORGED * 3) + LAST
    step = -(-len(stream) // pieces)
    answers = talk(refuser, *[stream[start : start + step] for start in range(0, len(stream), step)])
    assert [status for status, _ in answers] == [429, 429, 200]
    assert answers[-1][1] == b"2"
    assert b'"overloaded"' in answers[0][1]
    assert refuser.refused == [("POST", "/full")] * 2


def test_chunks_are_dropped_too() -> None:
    chunked = b"POST /full HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    assert [status for status, _ in talk(Refuser(), chunked + LAST)] == [429, 200]


def test_an_answer_under_way_is_not_overtaken() -> None:
    answers = talk(Refuser(), post("/other", b"abc") + post("/full", b"ab") + LAST)
    assert answers == [(200, b"3"), (200, b"2"), (200, b"2")]  # pipelined: the application answers, and may refuse


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (post("/full", b"abcd", "Connection: close"), [(200, b"4")]),
        (post("/full", b"abcd", version="1.0"), [(200, b"4")]),
        (post("/full", b"abcd", "Expect: 100-continue") + LAST, [(100, b""), (200, b"4"), (200, b"2")]),
    ],
)
def test_what_asks_for_more_than_an_answer_goes_on_as_others_do(
    request_: bytes, expected: list[tuple[int, bytes]]
) -> None:
    refuser = Refuser()
    assert talk(refuser, request_) == expected
    assert refuser.refused == []


def test_who_is_not_busy_refuses_nothing() -> None:
    refuser = Refuser()
    refuser.busy = False
    assert talk(refuser, post("/full", b"abcd"), LAST) == [(200, b"4"), (200, b"2")]
