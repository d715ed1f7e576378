from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from service.errors import ImageError, ServiceError
from service.http.api import Api
from service.inference.postprocess import Prediction
from service.runtime import Runtime
from tests.service.conftest import (
    CLASSES,
    Hold,
    TinyModel,
    a_png,
    encode,
    eventually,
    expected,
    publish_tiny,
    serving,
    some_settings,
    turns,
)

URL = "/v1/classify"
Use = Callable[[httpx.AsyncClient, Runtime], Awaitable[None]]


def serve(root: Path, use: Use, **environ: object) -> None:
    """Run ``use`` with a client of a service over ``root``."""

    async def with_client(runtime: Runtime) -> None:
        transport = httpx.ASGITransport(Api(runtime), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await use(client, runtime)
            await eventually(lambda: runtime.gate.images == 0, "an empty gate")

    serving(some_settings(root, **environ), with_client)


def answer(
    root: Path, method: str, url: str, *, environ: dict[str, object] | None = None, **request: Any
) -> httpx.Response:
    """One request's response."""
    responses = []

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        responses.append(await client.request(method, url, **request))

    serve(root, use, **(environ or {}))
    return responses[0]


def check_error(response: httpx.Response, status: int, code: str) -> str:
    """The error's form; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert "\n" not in body["error"]["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    if "retry-after" in response.headers:
        assert int(response.headers["retry-after"]) >= 1
    return str(body["error"]["message"])


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]


def sample(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have ``labels``."""
    lines = [line for line in page.splitlines() if line.startswith((name + "{", name + " "))]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))


class Exchange:
    """One HTTP exchange by hand, where the test decides when the client speaks and leaves."""

    def __init__(
        self, runtime: Runtime, headers: dict[str, str] | None = None, path: str = URL, query: str = ""
    ) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
        }
        self.task = asyncio.create_task(Api(runtime)(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        message = await self.inbox.get()
        self.received += 1
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def say(self, body: bytes, more: bool = False) -> None:
        self.inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def response(self) -> httpx.Response:
        await asyncio.wait_for(self.task, 30)
        start, *bodies = self.sent
        return httpx.Response(start["status"], headers=start["headers"], content=b"".join(m["body"] for m in bodies))


# Answers


def test_one_image_gets_the_models_answer(tiny_root: Path, tiny: TinyModel) -> None:
    response = answer(tiny_root, "POST", URL, content=a_png(3))
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"model", "results", "request_id"}
    assert body["model"] == {"name": "tiny", "version": "1"}
    (result,) = body["results"]
    assert [(p["label"], p["index"]) for p in result["predictions"]] == [e[:2] for e in expected(tiny, 3, 5)]
    assert [p["probability"] for p in result["predictions"]] == pytest.approx(
        [e[2] for e in expected(tiny, 3, 5)], abs=1e-5
    )


def test_many_images_are_answered_in_order(tiny_root: Path, tiny: TinyModel) -> None:
    response = answer(tiny_root, "POST", URL, files=files(*(a_png(i) for i in range(9))), params={"top_k": 1})
    assert response.status_code == 200
    best = [result["predictions"][0]["index"] for result in response.json()["results"]]
    assert best == [expected(tiny, i, 1)[0][1] for i in range(9)]


def test_a_multipart_request_of_one_file(tiny_root: Path, tiny: TinyModel) -> None:
    response = answer(tiny_root, "POST", URL, files=files(a_png(1)))
    assert response.json()["results"][0]["predictions"][0]["index"] == expected(tiny, 1, 1)[0][1]


def test_a_bad_image_among_several_fails_alone(tiny_root: Path) -> None:
    response = answer(tiny_root, "POST", URL, files=files(a_png(0), b"no image", a_png(1), a_png(2)[:60]))
    assert response.status_code == 200
    results = response.json()["results"]
    assert ["predictions" in result for result in results] == [True, False, True, False]
    assert [results[i]["error"]["code"] for i in (1, 3)] == ["not_an_image", "bad_image"]


def test_only_bad_images_are_still_answered_one_by_one(tiny_root: Path) -> None:
    response = answer(tiny_root, "POST", URL, files=files(b"no", b"image"))
    assert [result["error"]["code"] for result in response.json()["results"]] == ["not_an_image"] * 2


@pytest.mark.parametrize("k", [1, 2, CLASSES])
def test_top_k(tiny_root: Path, k: int) -> None:
    response = answer(tiny_root, "POST", f"{URL}?top_k={k}", content=a_png())
    predictions = response.json()["results"][0]["predictions"]
    assert len(predictions) == k
    assert [p["probability"] for p in predictions] == sorted((p["probability"] for p in predictions), reverse=True)


def test_top_k_of_a_model_of_few_classes(tmp_path: Path) -> None:
    publish_tiny(tmp_path, model=TinyModel(classes=2))
    assert len(answer(tmp_path, "POST", URL, content=a_png()).json()["results"][0]["predictions"]) == 2


@pytest.mark.parametrize("k", ["0", "8", "-1", "1.0", "", "x", "٣", "+1", "%201", "1e0", "9" * 5000, "1_0"])
def test_top_k_out_of_bounds(tiny_root: Path, k: str) -> None:
    response = answer(tiny_root, "POST", f"{URL}?top_k={k}", content=a_png())
    assert check_error(response, 400, "bad_request").startswith("top_k: must be ")


@pytest.mark.parametrize("query", ["topk=1", "top_k=1&k=1", "=1", "TOP_K=1", f"{'x' * 3000}=1"])
def test_unknown_query_parameters(tiny_root: Path, query: str) -> None:
    message = check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")
    assert "known: class, include, min_probability, model, top_k, version" in message
    assert len(message) < 300


@pytest.mark.parametrize("query", ["top_k=1&top_k=1", "model=tiny&model=tiny", "version=1&top_k=1&version=2"])
def test_repeated_query_parameters(tiny_root: Path, query: str) -> None:
    assert "twice" in check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")


def test_parameters_in_great_number_are_not_taken_apart(tiny_root: Path) -> None:
    query = "&".join(["top_k=1"] * 65)
    assert "64" in check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")


def test_models_and_versions(tmp_path: Path) -> None:
    for name, version, seed in (("tiny", "1", 0), ("tiny", "2", 1), ("other", "1", 2)):
        publish_tiny(tmp_path, name, version, TinyModel(seed))

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for query, wanted in {
            "": ("tiny", "2"),
            "model=tiny": ("tiny", "2"),
            "version=1": ("tiny", "1"),
            "model=tiny&version=1": ("tiny", "1"),
            "model=other": ("other", "1"),
        }.items():
            body = (await client.post(f"{URL}?{query}", content=a_png(5))).json()
            assert tuple(body["model"].values()) == wanted
            seed = {("tiny", "1"): 0, ("tiny", "2"): 1, ("other", "1"): 2}[wanted]
            assert body["results"][0]["predictions"][0]["index"] == expected(TinyModel(seed), 5, 1)[0][1]
        for query in (
            "model=none",
            "model=",
            "model=tiny&version=3",
            "version=9",
            "model=other&version=2",
            "model=../x",
        ):
            response = await client.post(f"{URL}?{query}", content=a_png())
            assert "served: tiny version 2" in check_error(response, 404, "unknown_model")
        long = await client.post(f"{URL}?model={'x' * 5000}", content=a_png())
        assert len(check_error(long, 404, "unknown_model")) < 500, "what the client typed comes back unbounded"
        listed = (await client.get("/v1/models")).json()["models"]
        assert [(m["name"], m["version"], m["default"]) for m in listed] == [
            ("tiny", "2", True),
            ("tiny", "1", False),
            ("other", "1", False),
        ]

    serve(tmp_path, use, models="tiny,tiny@1,other")


def test_models_are_described(tiny_root: Path, tiny: TinyModel) -> None:
    (model,) = answer(tiny_root, "GET", "/v1/models").json()["models"]
    assert model["labels"] == list(tiny.labels)
    assert model["classes"] == CLASSES
    assert model["input"] == {"height": 8, "width": 8}
    assert (model["provider"], model["precision"], model["architecture"]) == ("cpu", "fp32", "tiny")
    assert model["gated"] is True
    assert len(model["sha256"]) == 64
    assert model["profile"] is None


def test_any_content_type_is_taken_for_one_image(tiny_root: Path) -> None:
    for kind in ("image/png", "application/octet-stream", "text/plain", ""):
        response = answer(tiny_root, "POST", URL, content=a_png(), headers={"content-type": kind})
        assert response.status_code == 200


# Errors


def test_one_bad_image_is_an_error(tiny_root: Path) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"content": b"no image"}, 415, "not_an_image"),
        ({"content": encode(Image.new("RGB", (4, 4)), "GIF")}, 415, "not_an_image"),
        ({"content": a_png()[:60]}, 422, "bad_image"),
        ({"content": encode(Image.new("L", (50, 50)))}, 413, "image_too_large"),
        ({"files": files(b"no image")}, 415, "not_an_image"),
        ({"files": files(b"")}, 415, "not_an_image"),
        ({"files": files(a_png()[:60])}, 422, "bad_image"),
        ({"files": files(encode(Image.new("L", (50, 50))))}, 413, "image_too_large"),
        ({"content": b""}, 400, "bad_request"),
        ({"files": files(*[a_png()] * 4)}, 413, "too_many_images"),
        ({"content": b"x" * 4097}, 413, "body_too_large"),
        ({"content": b"x" * 4097, "headers": {"content-length": "0"}}, 413, "body_too_large"),
        ({"data": {"top_k": "3"}, "files": files(a_png())}, 400, "bad_request"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request"),
        ({"content": b"--b--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "bad_request"),
        ({"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "bad_request"),
        ({"content": a_png(), "headers": {"content-length": "abc"}}, 400, "bad_request"),
    ]

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        wrong = []
        for request, status, code in cases:
            response = await client.post(URL, **request)
            try:
                check_error(response, status, code)
            except AssertionError as error:
                wrong.append(f"{str(request)[:90]} should give {status} {code}: {error}")
        assert not wrong, "\n".join(wrong)

    serve(tiny_root, use, max_pixels=2000, max_images=3, max_body_bytes=4096)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused_before_all_of_it_is_read(tiny_root: Path, announced: bool) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime, {"content-length": "100000"} if announced else {})
        if not announced:
            for _piece in range(3):
                exchange.say(b"x" * 1000, more=True)
        response = await exchange.response()
        assert "2048" in check_error(response, 413, "body_too_large")
        assert exchange.received == (0 if announced else 3)

    serve(tiny_root, use, max_body_bytes=2048)


def test_a_body_of_just_the_limit_is_taken(tiny_root: Path) -> None:
    image = a_png()
    padded = image + b"\0" * (2048 - len(image))
    assert answer(tiny_root, "POST", URL, content=padded, environ={"max_body_bytes": 2048}).status_code == 200


def test_a_body_in_pieces(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        image = a_png()
        for i in range(0, len(image), 7):
            exchange.say(image[i : i + 7], more=True)
        exchange.say(b"")
        assert (await exchange.response()).status_code == 200

    serve(tiny_root, use)


def test_unknown_paths_and_methods(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for path in ("/v1/classify/", "/v1", "/V1/classify", "/%2e%2e/etc/passwd", "/favicon.ico"):
            check_error(await client.get(path), 404, "not_found")
        for method, path in (
            ("GET", URL),
            ("PUT", URL),
            ("HEAD", URL),
            ("POST", "/metrics"),
            ("DELETE", "/"),
            ("PURGE", "/"),
        ):
            response = await client.request(method, path)
            assert response.status_code == 405
            if method != "HEAD":
                check_error(response, 405, "method_not_allowed")
        for path in ("/", "/v1/models", "/metrics"):
            assert (await client.head(path)).status_code == 200

    serve(tiny_root, use)


def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(tiny_root: Path) -> None:
    """RFC 9110, 15.5.6: the origin server MUST generate an Allow header field in a 405 response."""
    assert answer(tiny_root, "GET", URL).headers["allow"] == "POST"
    assert answer(tiny_root, "POST", "/v1/models").headers["allow"] == "GET, HEAD"


def test_a_probe_that_bentoml_does_not_take_is_a_wrong_method(tiny_root: Path) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        response = answer(tiny_root, "POST", path)
        check_error(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"
        check_error(answer(tiny_root, "GET", path), 404, "not_found")  # without BentoML in front there is none


def test_the_index_lists_the_routes(tiny_root: Path) -> None:
    body = answer(tiny_root, "GET", "/").json()
    assert set(body["routes"]) >= {"/", URL, "/v1/models", "/v1/models/{name}", "/metrics", "/livez", "/readyz"}


@pytest.mark.parametrize("given", ["abc", "a" * 128, "3f2c-9.x_y:z/+=", "0"])
def test_a_plain_request_id_comes_back(tiny_root: Path, given: str) -> None:
    for content, status in ((a_png(), 200), (b"x", 415)):
        response = answer(tiny_root, "POST", URL, content=content, headers={"x-request-id": given})
        assert response.status_code == status
        assert response.headers["x-request-id"] == given
        assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "<script>", 'a"b', "a\tb", "é", "a,b", "{}"])
def test_an_odd_request_id_is_replaced(tiny_root: Path, given: str) -> None:
    response = answer(tiny_root, "POST", URL, content=a_png(), headers={"x-request-id": given.encode("latin-1")})
    assert response.headers["x-request-id"] != given
    assert len(response.headers["x-request-id"]) == 32
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_every_answer_has_its_own_request_id(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        seen = {(await client.get(path)).headers["x-request-id"] for path in ("/", "/", "/metrics", "/nothing", URL)}
        assert len(seen) == 5

    serve(tiny_root, use)


# Load, deadlines, clients that leave


def test_beyond_the_queue_requests_are_refused_before_their_body(
    tiny_root: Path, hold_model: Callable[[Runtime], Hold]
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = [asyncio.create_task(client.post(URL, content=a_png())) for _ in range(2)]
        await hold.wait_entered()
        await eventually(lambda: runtime.gate.images == 2)
        refused = Exchange(runtime)
        check_error(await refused.response(), 429, "overloaded")
        assert refused.received == 0
        hold.released.set()
        assert [(await task).status_code for task in accepted] == [200, 200]
        assert (await client.post(URL, content=a_png())).status_code == 200

    serve(tiny_root, use, max_queue=2, max_images=2)


def test_a_request_of_many_counts_each_image(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = asyncio.create_task(client.post(URL, files=files(a_png(), a_png())))
        await hold.wait_entered()
        assert runtime.gate.images == 2
        check_error(await client.post(URL, files=files(a_png(), a_png())), 429, "overloaded")
        assert runtime.gate.images == 2
        hold.released.set()
        assert (await accepted).status_code == 200

    serve(tiny_root, use, max_queue=3, max_images=3)


def test_beyond_the_deadline_it_is_504(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = await client.post(URL, content=a_png(0))
        assert "within the time" in check_error(first, 504, "deadline_exceeded")
        check_error(await client.post(URL, files=files(a_png(1), a_png(2))), 504, "deadline_exceeded")
        assert runtime.gate.images == 0
        hold.released.set()
        await eventually(lambda: runtime.models[0]._batcher._slots.free == 1)
        assert len(hold.batches) <= 1, "an image was computed after its deadline"

    serve(tiny_root, use, deadline_s=0.2)


def test_a_body_that_does_not_come_in_time_is_the_clients_fault(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(b"x", more=True)
        check_error(await exchange.response(), 408, "slow_client")

    serve(tiny_root, use, deadline_s=0.05)


@pytest.mark.parametrize("many", [False, True])
def test_a_client_that_leaves_is_not_computed_for(
    tiny_root: Path, hold_model: Callable[[Runtime], Hold], many: bool
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        busy = asyncio.create_task(client.post(URL, content=a_png(0)))
        await hold.wait_entered()
        request = httpx.Request(
            "POST", "http://test", **({"files": files(a_png(1), a_png(2))} if many else {"content": a_png(1)})
        )
        exchange = Exchange(runtime, dict(request.headers))
        exchange.say(request.read())
        await eventually(lambda: len(runtime.models[0]._batcher._queue) == 1 + many, "the queued images")
        exchange.leave()
        await asyncio.wait_for(exchange.task, 30)
        # An end, though nobody hears it: middleware around the application waits for one.
        assert (await exchange.response()).status_code == 499
        assert runtime.gate.images == 1
        hold.released.set()
        assert (await busy).status_code == 200
        assert (await client.post(URL, content=a_png(3))).status_code == 200
        seen = [np.array(image).tolist() for batch in hold.batches for image in batch]
        assert len(seen) == 2, "an image of a client that had left was computed"
        page = (await client.get("/metrics")).text
        assert sample(page, "resnet_requests_total", code="499", route=URL, model="tiny") == 1

    serve(tiny_root, use)


def test_a_client_that_leaves_while_it_sends(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(a_png()[:20], more=True)
        exchange.leave()
        await asyncio.wait_for(exchange.task, 30)
        # An end, though nobody hears it: middleware around the application waits for one.
        assert (await exchange.response()).status_code == 499
        assert runtime.gate.images == 0
        assert sample((await client.get("/metrics")).text, "resnet_requests_total", code="499") == 1

    serve(tiny_root, use)


def test_a_server_that_cancels_the_request_is_obeyed(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        exchange = Exchange(runtime)
        exchange.say(a_png())
        await hold.wait_entered()
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
        assert runtime.gate.images == 0
        hold.released.set()

    serve(tiny_root, use)


# Failures


def test_what_the_model_raises_is_500_without_details(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("secret /path")

        monkeypatch.setattr(runtime.models[0].session, "run", broken)
        for request in ({"content": a_png()}, {"files": files(a_png(), a_png())}):
            message = check_error(await client.post(URL, **request), 500, "inference_failed")
            assert "secret" not in message

    serve(tiny_root, use)
    assert "secret /path" in caplog.text


def test_an_unexpected_error_is_500_without_details(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        async def broken(*_: Any) -> list[Prediction]:
            raise LookupError("secret /path")

        monkeypatch.setattr(runtime.models[0], "run", broken)
        response = await client.post(URL, content=a_png(), headers={"x-request-id": "find-me"})
        assert "secret" not in check_error(response, 500, "internal")
        assert "secret" not in str(response.headers)
        monkeypatch.setattr(runtime.metrics, "page", lambda: 1 // 0)
        assert "division" not in check_error(await client.get("/metrics"), 500, "internal")

    with caplog.at_level(logging.ERROR):
        serve(tiny_root, use)
    assert "secret /path" in caplog.text
    assert "find-me" in caplog.text


def test_logits_that_are_no_numbers_are_a_failure_and_no_answer(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no NaN: a broken model must not answer 200 with ``null`` or with fewer classes than asked for."""

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        for value in (np.nan, np.inf, -np.inf):
            monkeypatch.setattr(
                runtime.models[0].session,
                "run",
                lambda batch, *_, v=value: {"logits": np.full((len(batch), CLASSES), v, np.float32)},
            )
            check_error(await client.post(f"{URL}?top_k=2", content=a_png()), 500, "inference_failed")

    serve(tiny_root, use)


def _subclasses(kind: type[ServiceError]) -> list[type[ServiceError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in _subclasses(sub))]


@pytest.mark.parametrize("kind", [kind for kind in _subclasses(ServiceError) if kind is not ImageError])
def test_every_error_has_its_status(tiny_root: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ServiceError]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        async def raises(*_: Any) -> list[Prediction]:
            raise kind("as it is")

        monkeypatch.setattr(runtime.models[0], "run", raises)
        assert check_error(await client.post(URL, content=a_png()), kind.status, kind.code) == "as it is"

    serve(tiny_root, use)


# Life cycle


def test_before_the_models_are_loaded_it_is_503(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        monkeypatch.setattr(runtime, "_state", "the models are loading")
        assert "loading" in check_error(await client.post(URL, content=a_png()), 503, "not_ready")
        assert "loading" in check_error(await client.get("/v1/models"), 503, "not_ready")
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/")).status_code == 200

    serve(tiny_root, use)


def test_while_it_stops_accepted_requests_are_answered(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = [asyncio.create_task(client.post(URL, content=a_png(i))) for i in range(3)]
        await hold.wait_entered()
        await eventually(lambda: len(runtime.models[0]._batcher._queue) == 2)
        stopping = asyncio.create_task(runtime.stop())
        await turns()
        late = await client.post(URL, content=a_png())
        hold.released.set()
        await stopping
        assert [(await task).status_code for task in accepted] == [200] * 3
        check_error(late, 503, "shutting_down")

    serve(tiny_root, use)


def test_a_body_that_comes_after_the_stop_is_answered_503(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(a_png()[:20], more=True)
        await turns()
        await runtime.stop()
        exchange.say(a_png()[20:])
        check_error(await exchange.response(), 503, "shutting_down")

    serve(tiny_root, use)


def test_a_websocket_is_refused(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        async def never() -> Any:
            pytest.fail("listened to it")

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        await Api(runtime)({"type": "websocket", "path": "/"}, never, send)
        assert sent == [{"type": "websocket.close"}]

    serve(tiny_root, use)


# Metrics


def test_requests_are_counted_by_known_names_alone(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        await client.post(URL, content=a_png())
        await client.post(URL, files=files(a_png(), a_png(), b"bad"))
        await client.post(URL, content=b"bad")
        await client.post(f"{URL}?model=strange-name", content=a_png())
        await client.get("/strange-path")
        response = await client.get("/metrics")
        page = response.text
        assert response.headers["content-type"].startswith("text/plain")
        assert "strange" not in page
        assert sample(page, "resnet_requests_total", route=URL, model="tiny", code="200") == 2
        assert sample(page, "resnet_requests_total", route=URL, model="tiny", code="415") == 1
        assert sample(page, "resnet_requests_total", route=URL, model="", code="404") == 1
        assert sample(page, "resnet_requests_total", route="other", code="404") == 1
        assert sample(page, "resnet_request_seconds_count", route=URL) == 4
        assert sample(page, "resnet_stage_seconds_count", stage="read") == 3
        assert sample(page, "resnet_stage_seconds_count", stage="queue") == 5
        assert sample(page, "resnet_batch_images_sum", model="tiny") == 5  # bad ones too: a slot decodes them
        assert sample(page, "resnet_queue_images", model="tiny") == 0
        assert sample(page, "resnet_workers_ready") == 1
        assert sample(page, "resnet_model_info", model="tiny", version="1", provider="cpu", precision="fp32") == 1
        assert sample(page, "resnet_predictions_total", model="tiny", version="1") == 3
        assert sample(page, "resnet_prediction_confidence_count", model="tiny", version="1") == 3
        assert sample(page, "resnet_stage_seconds_count", stage="transform") == 3
        for stage in ("read", "decode", "transform", "queue", "infer", "post"):
            assert sample(page, "resnet_stage_seconds_count", stage=stage) > 0

    serve(tiny_root, use)


def test_answers_are_compact_json(tiny_root: Path) -> None:
    response = answer(tiny_root, "POST", URL, content=a_png())
    assert orjson.dumps(response.json()) == response.content
    assert int(response.headers["content-length"]) == len(response.content)
