from __future__ import annotations

import asyncio
from typing import Any

import orjson

from service.errors import BadImage, Overloaded
from service.http.answers import Answer, error_answer, json_answer


def sent(answer: Answer) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(answer.send(send, "an-id"))
    return messages


def test_an_answer_is_two_messages() -> None:
    start, body = sent(json_answer({"a": [1, 2]}))
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"11",
        b"x-request-id": b"an-id",
    }
    assert body == {"type": "http.response.body", "body": b'{"a":[1,2]}'}


def test_errors_say_who_asked_and_when_to_come_back() -> None:
    start, body = sent(error_answer(Overloaded("busy"), "an-id"))
    assert start["status"] == 429
    assert int(dict(start["headers"])[b"retry-after"]) >= 1
    assert orjson.loads(body["body"]) == {"error": {"code": "overloaded", "message": "busy"}, "request_id": "an-id"}
    start, _ = sent(error_answer(BadImage("broken"), "an-id", (b"allow", b"GET")))
    assert b"retry-after" not in dict(start["headers"])
    assert dict(start["headers"])[b"allow"] == b"GET"


def test_an_answer_without_a_body_tells_no_length() -> None:
    for status in (204, 304):
        start, _ = sent(Answer(status, b"", ()))
        assert b"content-length" not in dict(start["headers"])
