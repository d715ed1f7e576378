"""Both clients, against a service made of a function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.client import (
    AsyncClient,
    BadAnswer,
    Client,
    ClientError,
    Options,
    Refused,
    Retry,
    TimedOut,
    Unreachable,
    blocking,
    calls,
)
from tests.service.client.conftest import (
    HEATMAP,
    MODEL,
    PNG,
    SHIP,
    URL,
    Call,
    Script,
    answer,
    images_of,
    labels,
    refusal,
)


def test_one_image_is_the_body(call: Call) -> None:
    service = Script(answer({"predictions": [SHIP]}))
    (result,) = call(service, "classify", [b"image"], top_k=2)
    (request,) = service.requests
    assert (request.method, request.url) == ("POST", f"{URL}/v1/classify?top_k=2")
    assert request.content == b"image"
    assert request.headers["accept-encoding"] == "identity"
    (best,) = result.predictions
    assert (best.label, best.index, best.probability) == ("ship", 8, 0.75)
    assert result.model.model_dump() == MODEL
    assert result.error is None


def test_several_images_are_a_form_and_in_order(call: Call) -> None:
    service = Script(labels)
    results = call(service, "classify", [b"a", b"b", b"c"])
    assert [result.predictions[0].label for result in results] == ["a", "b", "c"]
    (request,) = service.requests
    assert images_of(request) == [b"a", b"b", b"c"]


def test_more_images_than_a_request_takes_are_several_requests(call: Call) -> None:
    service = Script(labels)
    results = call(service, "classify", [b"%d" % i for i in range(5)], options=Options(batch=2))
    assert [result.predictions[0].label for result in results] == ["0", "1", "2", "3", "4"]
    assert [len(images_of(request)) for request in service.requests] == [2, 2, 1]


def test_no_images_are_no_request(call: Call) -> None:
    service = Script(labels)
    assert call(service, "classify", []) == []
    assert service.requests == []


def test_paths_are_read(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"from a file")
    results = call(Script(labels), "classify", [path, str(path), b"bytes"])
    assert [result.predictions[0].label for result in results] == ["from a file", "from a file", "bytes"]
    with pytest.raises(FileNotFoundError):
        call(Script(labels), "classify", [tmp_path / "none.jpg"])


@pytest.mark.parametrize("one", ["a.jpg", b"bytes", Path("a.jpg")])
def test_one_image_in_the_place_of_a_list_is_a_mistake(call: Call, one: object) -> None:
    with pytest.raises(TypeError, match="list"):
        call(Script(labels), "classify", one)


def test_the_model_goes_into_every_query(call: Call) -> None:
    service = Script(answer({"predictions": []}))
    options = Options(model="mine", version="champion", headers={"Authorization": "Bearer t"})
    call(service, "classify", [b"x"], options=options, min_probability=0.5, include=["scores", "timings"])
    (request,) = service.requests
    wanted = {"min_probability": "0.5", "include": "scores,timings", "model": "mine", "version": "champion"}
    assert dict(request.url.params) == wanted
    assert request.headers["authorization"] == "Bearer t"


def test_a_key_goes_into_every_request_and_nowhere_else(call: Call) -> None:
    service = Script(labels)
    options = Options(api_key="the-key", headers={"Authorization": "Basic of-a-proxy"})
    call(service, "classify", [b"a"], options=options)
    (request,) = service.requests
    assert (request.headers["x-api-key"], request.headers["authorization"]) == ("the-key", "Basic of-a-proxy")
    assert "the-key" not in str(request.url) + repr(options)


def test_a_url_with_a_path(call: Call) -> None:
    service = Script(labels)
    with Client("http://proxy.test/vision/", transport=httpx.MockTransport(service)) as client:
        client.classify([b"x"])
    assert service.requests[0].url.path == "/vision/v1/classify"


@pytest.mark.parametrize(
    "url", ["ftp://host", "localhost:3000", "http://", "", "http://host:port", "file:///etc/passwd"]
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Client(url)


def test_embeddings(call: Call) -> None:
    service = Script(answer({"embedding": [1.0, 2]}, dimensions=2))
    (result,) = call(service, "embed", [b"x"], normalize=True)
    assert result.embedding == [1.0, 2.0]
    assert service.requests[0].url == f"{URL}/v1/embed?normalize=true"


def test_an_explanation(call: Call) -> None:
    service = Script(answer({"heatmap": HEATMAP, "predictions": [SHIP]}))
    heatmap = call(service, "explain", b"x", class_="ship").heatmap
    assert service.requests[0].url == f"{URL}/v1/explain?class=ship"
    assert heatmap.grid == [[1.0, 4.0]]
    assert heatmap.box == (0.0, 0.0, 32.0, 32.0)


def test_a_picture(call: Call) -> None:
    service = Script(httpx.Response(200, content=PNG, headers={"content-type": "image/png"}))
    assert call(service, "explain_png", b"x", class_=0, style="overlay", opacity=0.5) == PNG
    (request,) = service.requests
    assert request.headers["accept"] == "image/png"
    assert dict(request.url.params) == {"class": "0", "style": "overlay", "opacity": "0.5"}


def test_a_picture_that_is_none(call: Call) -> None:
    with pytest.raises(BadAnswer, match="no PNG"):
        call(Script(httpx.Response(200, content=b"GIF89a", headers={"content-type": "image/png"})), "explain_png", b"x")


def test_a_bad_image_has_its_error_alone_and_among_others(call: Call) -> None:
    error = {"error": {"code": "bad_image", "message": "cut off"}}
    alone = call(Script(refusal(422, "bad_image", "cut off")), "classify", [b"x"])
    among = call(Script(answer({"predictions": []}, error)), "classify", [b"x", b"y"])
    assert alone[0].error == among[1].error
    assert (alone[0].error.code, alone[0].error.message) == ("bad_image", "cut off")
    assert alone[0].predictions is None


@pytest.mark.parametrize(
    ("status", "code"), [(400, "bad_request"), (404, "unknown_model"), (422, "missing_output"), (500, "internal")]
)
def test_a_refused_request_raises_and_is_not_sent_again(call: Call, status: int, code: str) -> None:
    service = Script(refusal(status, code))
    with pytest.raises(Refused) as raised:
        call(service, "classify", [b"x"])
    assert (raised.value.status, raised.value.code, raised.value.request_id) == (status, code, "r1")
    assert str(raised.value) == f"so it is ({status} {code})"
    assert len(service.requests) == 1


def test_an_error_of_another_server(call: Call) -> None:
    with pytest.raises(Refused, match="Gateway Timeout") as raised:
        call(Script(httpx.Response(504, text="<html>")), "classify", [b"x"])
    assert raised.value.code == "http_504"
    with pytest.raises(Refused, match="status 799"):
        call(Script(httpx.Response(799)), "classify", [b"x"])


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_service_is_asked_again_when_it_says(
    call: Call, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("service.client.blocking.time.sleep", slept.append)
    monkeypatch.setattr("service.client.concurrent.asyncio.sleep", sleep)
    told: list[tuple[str, float]] = []
    options = Options(retry=Retry(2), on_retry=lambda error, pause: told.append((error.code, pause)))
    service = Script(refusal(status, "full", retry_after="3"), refusal(status, "full"), labels)
    (result,) = call(service, "classify", [b"x"], options=options)
    assert result.predictions[0].label == "x"
    assert [request.content for request in service.requests] == [b"x"] * 3
    assert 3 < slept[0] <= 3.5
    assert 0.5 <= slept[1] <= 1
    assert told == [("full", slept[0]), ("full", slept[1])]


def test_a_form_is_sent_again_whole(call: Call) -> None:
    service = Script(refusal(429, "overloaded"), labels)
    assert len(call(service, "classify", [b"a", b"b"])) == 2
    assert [images_of(request) for request in service.requests] == [[b"a", b"b"]] * 2


def test_retries_end(call: Call) -> None:
    service = Script(refusal(429, "overloaded"))
    with pytest.raises(Refused):
        call(service, "classify", [b"x"], options=Options(retry=Retry(2, first_pause_s=0)))
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ConnectTimeout(""), Unreachable),
        (httpx.RemoteProtocolError("Server disconnected"), Unreachable),
        (httpx.ReadError(""), Unreachable),
        (httpx.ReadTimeout(""), TimedOut),
        (httpx.WriteTimeout(""), TimedOut),
    ],
)
def test_a_broken_connection_is_tried_again(call: Call, failure: Exception, kind: type[ClientError]) -> None:
    assert len(call(Script(failure, failure, labels), "classify", [b"x"])) == 1
    with pytest.raises(kind, match=r"service\.test"):
        call(Script(failure), "classify", [b"x"])


def test_no_message_holds_the_password(call: Call) -> None:
    service = Script(httpx.ConnectError("refused"))
    with (
        Client(
            "http://user:secret@service.test", Options(retry=Retry(0)), transport=httpx.MockTransport(service)
        ) as client,
        pytest.raises(Unreachable) as raised,
    ):
        client.classify([b"x"])
    assert "secret" not in str(raised.value)
    assert service.requests[0].headers["authorization"].startswith("Basic ")


WRONG = {
    "no JSON": b"<html>",
    "nothing": b"",
    "a list": b"[]",
    "no results": b'{"model": {"name": "a", "version": "1"}}',
    "too few results": b'{"model": {"name": "a", "version": "1"}, "results": []}',
    "a text for a number": b'{"model": {"name": "a", "version": "1"}, "results": [{"predictions": '
    b'[{"label": "a", "index": "0", "probability": 1}]}]}',
    "not a number": b'{"model": {"name": "a", "version": "1"}, "results": [{"predictions": '
    b'[{"label": "a", "index": 0, "probability": NaN}]}]}',
    "very deep": b"[" * 100_000,
    "no UTF-8": b'{"model": "\xff"}',
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_an_answer_that_is_not_the_apis(call: Call, body: bytes) -> None:
    service = Script(httpx.Response(200, content=body, headers={"content-type": "application/json"}))
    with pytest.raises(BadAnswer) as raised:
        call(service, "classify", [b"x"])
    assert len(str(raised.value)) < 600
    assert len(service.requests) == 1


def test_what_a_newer_service_adds_is_no_fault(call: Call) -> None:
    (result,) = call(Script(answer({"predictions": [SHIP | {"new": 1}], "new": {}}, new=[])), "classify", [b"x"])
    assert result.predictions[0].label == "ship"


def test_a_page_in_the_place_of_an_answer(call: Call) -> None:
    with pytest.raises(BadAnswer, match="text/html"):
        call(Script(httpx.Response(200, html="<p>welcome")), "classify", [b"x"])


class _Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Never ends; how much of it was taken is counted."""

    taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.taken += 1
            yield b" " * 1000

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for chunk in self:
            yield chunk


def test_an_endless_answer_is_not_held(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_ANSWER_BYTES", 10_000)
    stream = _Endless()
    with pytest.raises(BadAnswer, match="longer than 10000 bytes"):
        call(lambda _: httpx.Response(200, stream=stream), "classify", [b"x"])
    assert stream.taken == 11


def test_an_answer_that_trickles_is_too_late(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1_000_000, 10))
    monkeypatch.setattr("service.client.exchange.time.monotonic", lambda: next(clock))
    with pytest.raises(TimedOut, match="no whole answer"):
        call(
            lambda _: httpx.Response(200, stream=_Endless()),
            "classify",
            [b"x"],
            options=Options(timeout_s=25, retry=Retry(0)),
        )


def test_a_compressed_answer_was_not_asked_for(call: Call) -> None:
    def gzipped(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_Endless())

    with pytest.raises(BadAnswer, match="compressed"):
        call(gzipped, "classify", [b"x"])


def test_redirects_are_not_followed(call: Call) -> None:
    service = Script(httpx.Response(307, headers={"location": "http://elsewhere.test/"}))
    with pytest.raises(Refused, match="Temporary Redirect"):
        call(service, "classify", [b"x"])
    assert len(service.requests) == 1


def test_no_more_calls_are_made_at_once_than_there_are_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a call's time does not pass while it waits for one."""
    under_way, most = 0, 0

    def count(change: int) -> None:
        nonlocal under_way, most
        under_way += change
        most = max(most, under_way)

    async def slow(_: httpx.Request) -> httpx.Response:
        count(1)
        await asyncio.sleep(0.001)
        count(-1)
        return answer({"predictions": [SHIP]})

    async def many() -> None:
        async with AsyncClient(URL, connections=2, transport=httpx.MockTransport(slow)) as client:
            await asyncio.gather(*(client.classify([b"x"]) for _ in range(9)))

    asyncio.run(many())
    assert most == 2

    meet = threading.Barrier(2)

    def slow_too(_: httpx.Request) -> httpx.Response:
        count(1)
        meet.wait(10)
        count(-1)
        return answer({"predictions": [SHIP]})

    monkeypatch.setattr(blocking, "CONNECTIONS", 2)
    with Client(URL, transport=httpx.MockTransport(slow_too)) as client, ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(client.classify, [[b"x"]] * 8))) == 8
    assert most == 2
