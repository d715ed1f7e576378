"""Errors: the client's, by status and code, and the service's own, without details."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.errors import ImageError, ServiceError
from service.inference.postprocess import Prediction
from service.runtime import Runtime
from tests.service.conftest import CLASSES, a_png, encode
from tests.service.http.conftest import URL, Exchange, answer, check_error, files, serve

# What the client sent


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
