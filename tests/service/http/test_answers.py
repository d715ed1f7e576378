from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.errors import BadImage, Overloaded
from service.http import answers
from service.http.answers import PRIVATE, Answer, FileAnswer, error_answer, json_answer


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
        **dict(PRIVATE),
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


def test_errors_below_v2_have_the_protocols_form() -> None:
    start, body = sent(error_answer(Overloaded("busy"), "an-id", path="/v2/models/tiny/infer"))
    assert orjson.loads(body["body"]) == {"error": "busy"}
    assert (b"retry-after", b"1") in start["headers"]
    for path in ("/v2x", "/v1/v2/", ""):
        _, body = sent(error_answer(Overloaded("busy"), "an-id", path=path))
        assert orjson.loads(body["body"])["request_id"] == "an-id"


class Download:
    """A file on its way to a client by hand: the test says when it takes a piece and when it leaves."""

    def __init__(self, path: Path, length: int, *, head: bool = False) -> None:
        self.file = path.open("rb")
        self.messages: list[Any] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.left = asyncio.Event()
        answer = FileAnswer(200, b"", (), self.file, length, self._receive, head=head)
        self.task = asyncio.create_task(answer.send(self._send, "an-id"))

    async def _receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.takes.wait()
        self.messages.append(message)

    async def end(self) -> None:
        async with asyncio.timeout(30):
            await self.task
        assert self.file.closed


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 3000)
    return path


@pytest.mark.parametrize("length", [0, 1, 2**18, 2**18 + 1, 700_000])
def test_a_file_is_sent_in_pieces(a_file: Path, length: int) -> None:
    content = a_file.read_bytes()

    async def main() -> None:
        download = Download(a_file, length)
        await download.end()
        start, *pieces = download.messages
        assert dict(start["headers"])[b"content-length"] == b"%d" % length
        assert b"".join(piece["body"] for piece in pieces) == content[:length]
        assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        assert max(len(piece["body"]) for piece in pieces) <= 2**18

    asyncio.run(main())


def test_of_a_head_request_the_file_is_not_read(a_file: Path) -> None:
    async def main() -> None:
        download = Download(a_file, 1000, head=True)
        await download.end()
        start, body = download.messages
        assert dict(start["headers"])[b"content-length"] == b"1000"
        assert body == {"type": "http.response.body", "body": b""}

    asyncio.run(main())


def test_a_client_that_leaves_gets_no_more(a_file: Path) -> None:
    async def main() -> None:
        download = Download(a_file, 700_000)
        download.takes.clear()
        download.left.set()
        await download.end()
        assert download.messages == []

    asyncio.run(main())


def test_a_client_that_takes_nothing_is_not_waited_for(a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_PATIENCE_S", 0.01)

    async def main() -> None:
        download = Download(a_file, 700_000)
        download.takes.clear()
        await download.end()
        assert download.messages == []

    asyncio.run(main())


def test_an_answer_without_a_body_has_no_length() -> None:
    start, _ = sent(Answer(204, b"", ()))
    assert dict(start["headers"]) == {**dict(PRIVATE), b"x-request-id": b"an-id"}
