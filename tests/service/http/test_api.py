from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import CLASSES, TinyModel, a_png, expected
from tests.service.http.conftest import URL, Exchange, answer, check_error, files, sample, serve

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


def test_a_body_in_pieces(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        image = a_png()
        for i in range(0, len(image), 7):
            exchange.say(image[i : i + 7], more=True)
        exchange.say(b"")
        assert (await exchange.response()).status_code == 200

    serve(tiny_root, use)


def test_answers_are_compact_json(tiny_root: Path) -> None:
    response = answer(tiny_root, "POST", URL, content=a_png())
    assert orjson.dumps(response.json()) == response.content
    assert int(response.headers["content-length"]) == len(response.content)


# Paths and methods


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


# Request ids


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
