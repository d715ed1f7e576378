from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.http import native
from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import TinyModel, a_png, expected, serving, some_settings, turns
from tests.service.http.conftest import answer, check_error, sample


def test_a_request_gets_the_answer_of_v1_classify(tiny_root: Path, tiny: TinyModel) -> None:
    # As BentoML's client sends it.
    response = answer(tiny_root, "POST", "/classify", content=a_png(3), headers={"content-type": "text/plain"})
    assert response.status_code == 200
    again = answer(tiny_root, "POST", "/v1/classify", content=a_png(3)).json()
    assert {**response.json(), "request_id": ""} == {**again, "request_id": ""}
    assert response.json()["results"][0]["predictions"][0]["label"] == expected(tiny, 3, 1)[0][0]


def test_errors_are_ours(tiny_root: Path) -> None:
    check_error(answer(tiny_root, "POST", "/classify", content=b"no image"), 415, "not_an_image")
    check_error(answer(tiny_root, "GET", "/classify"), 405, "method_not_allowed")
    limit = {"max_body_bytes": 1024}
    check_error(answer(tiny_root, "POST", "/classify", content=bytes(1025), environ=limit), 413, "body_too_large")


def test_a_call_within_the_process_takes_the_same_way(tiny_root: Path, tiny: TinyModel) -> None:
    async def use(runtime: Runtime) -> None:
        api = Api(runtime)
        status, found = await native.classify(api, a_png(3))
        assert status == 200
        assert found["results"][0]["predictions"][0]["label"] == expected(tiny, 3, 1)[0][0]
        status, found = await native.classify(api, b"no image")
        assert (status, found["error"]["code"]) == (415, "not_an_image")
        page = runtime.metrics.page().decode()
        assert sample(page, "resnet_requests_total", route="/classify") == 2

    serving(some_settings(tiny_root), use)


def test_a_call_within_the_process_waits_for_its_turn_and_is_refused_where_the_gate_is_full(
    tiny_root: Path, hold_model: Any
) -> None:
    async def use(runtime: Runtime) -> None:
        api, hold = Api(runtime), hold_model(runtime)
        first = asyncio.create_task(native.classify(api, a_png(1)))
        await hold.wait_entered()
        await turns()
        assert not first.done()
        status, found = await native.classify(api, a_png(2))
        assert (status, found["error"]["code"]) == (429, "overloaded")
        hold.released.set()
        assert (await first)[0] == 200

    serving(some_settings(tiny_root, max_queue=1), use)


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_an_empty_call_is_answered(tiny_root: Path, data: bytes) -> None:
    async def use(runtime: Runtime) -> None:
        status, found = await native.classify(Api(runtime), data)
        assert status in (400, 415)
        assert found["error"]["message"]

    serving(some_settings(tiny_root), use)
