from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.http.bounded import BoundedBodies
from tests.service.http.conftest import check_error

LIMIT = 1000


class Inner:
    """An application that reads whole bodies, as BentoML's methods do, and says how long they were."""

    def __init__(self, answer_first: bool = False) -> None:
        self.called = 0
        self.read = 0
        self._answer_first = answer_first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called += 1
        if self._answer_first:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        async for chunk in Request(scope, receive).stream():
            self.read += len(chunk)
        if self._answer_first:
            await send({"type": "http.response.body", "body": b"done"})
        else:
            await PlainTextResponse(str(self.read))(scope, receive, send)


class Exchange:
    """One request by hand: chunks are made as they are asked for, so what was taken can be counted."""

    def __init__(self, chunks: list[bytes], **headers: str) -> None:
        self.chunks = chunks
        self.taken = 0
        self.sent: list[Any] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }

    async def receive(self) -> dict[str, Any]:
        if self.taken == len(self.chunks):
            return {"type": "http.disconnect"}
        self.taken += 1
        body = self.chunks[self.taken - 1]
        return {"type": "http.request", "body": body, "more_body": self.taken < len(self.chunks)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def ask(self, app: Inner) -> httpx.Response:
        asyncio.run(BoundedBodies(app, LIMIT)(self.scope, self.receive, self.send))
        start, *bodies = self.sent
        return httpx.Response(start["status"], headers=start["headers"], content=b"".join(m["body"] for m in bodies))


@pytest.mark.parametrize("sizes", [[0], [LIMIT], [400, 400, 200], [1] * LIMIT])
def test_a_body_within_the_bound_arrives_whole(sizes: list[int]) -> None:
    response = Exchange([b"x" * size for size in sizes]).ask(Inner())
    assert (response.status_code, response.text) == (200, str(sum(sizes)))


def test_a_body_that_says_that_it_is_too_large_is_not_read() -> None:
    inner, exchange = Inner(), Exchange([b"x"], content_length=str(LIMIT + 1), x_request_id="mine")
    message = check_error(exchange.ask(inner), 413, "body_too_large")
    assert str(LIMIT) in message
    assert (inner.called, exchange.taken) == (0, 0)
    assert b'"request_id":"mine"' in exchange.sent[1]["body"]


@pytest.mark.parametrize("headers", [{}, {"content_length": "10"}, {"transfer_encoding": "chunked"}])
def test_a_body_that_turns_out_to_be_too_large_is_read_no_further(headers: dict[str, str]) -> None:
    inner, exchange = Inner(), Exchange([b"x" * 300] * 1000, **headers)
    check_error(exchange.ask(inner), 413, "body_too_large")
    assert inner.read == 900
    assert exchange.taken == 4


def test_what_the_application_says_after_the_refusal_goes_nowhere() -> None:
    class Stubborn(Inner):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            assert (await receive())["type"] == "http.disconnect"
            await PlainTextResponse("all is well")(scope, receive, send)

    exchange = Exchange([b"x" * 600] * 3)
    check_error(exchange.ask(Stubborn()), 413, "body_too_large")
    assert len(exchange.sent) == 2


def test_an_answer_that_has_begun_is_broken_off() -> None:
    exchange = Exchange([b"x" * 600] * 3)
    asyncio.run(BoundedBodies(Inner(answer_first=True), LIMIT)(exchange.scope, exchange.receive, exchange.send))
    assert [message["type"] for message in exchange.sent] == ["http.response.start"]


def test_a_length_that_is_no_number_is_a_bad_request() -> None:
    inner = Inner()
    check_error(Exchange([b"x"], content_length="many").ask(inner), 400, "bad_request")
    assert inner.called == 0


def test_failures_of_the_application_are_its_own(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Inner):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise KeyError("broken")

    with caplog.at_level(logging.ERROR), pytest.raises(KeyError):
        Exchange([b"x"]).ask(Broken())


def test_what_is_no_request_passes() -> None:
    seen: list[Any] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    exchange = Exchange([])
    asyncio.run(BoundedBodies(lifespan, LIMIT)({"type": "lifespan"}, exchange.receive, exchange.send))
    assert seen == [({"type": "lifespan"}, exchange.receive, exchange.send)]
