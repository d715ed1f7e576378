from __future__ import annotations

import logging
from typing import Any

import pytest

from service.inference.outputs import Timings
from service.logs.request_log import RequestLog, plain_id
from service.logs.stages import Stages
from service.settings import LogSettings
from tests.service.logs.test_slow_requests import Clock


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records]  # type: ignore[attr-defined]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "service")
    return caplog


def answered(requests: RequestLog, status: int = 200, error: str = "", stages: Stages | None = None) -> None:
    requests.answered("id", "POST", "/v1/classify", status, error, "tiny", "1", 0.25, stages or Stages())


def of(**settings: Any) -> tuple[RequestLog, Clock]:
    clock = Clock()
    return RequestLog(LogSettings(**settings), clock), clock


def test_what_a_line_has(log: pytest.LogCaptureFixture) -> None:
    stages = Stages(images=2, received_bytes=10, read_s=0.001)
    stages.computed(Timings(0.002, 0.5, 0.003))
    stages.computed(Timings(0.001, 0.6, 0.004))
    requests, _ = of(log_requests="all")
    answered(requests, stages=stages)
    answered(requests, 404, "unknown_model")
    request = {"id": "id", "method": "POST", "route": "/v1/classify", "model": "tiny", "version": "1", "total_ms": 250}
    stages_ms = {"read_ms": 1, "decode_ms": 2, "queue_ms": 600, "infer_ms": 4}
    assert lines(log) == [
        {**request, "status": 200, "images": 2, "bytes": 10, **stages_ms},
        {**request, "status": 404, "error": "unknown_model"},
    ]


@pytest.mark.parametrize(
    ("wanted", "logged"),
    [
        ("off", []),
        ("errors", [429, 500, 503, 504]),
        ("sampled", [200, 404, 429, 499, 500, 503, 504]),
        ("all", [200, 404, 429, 499, 500, 503, 504]),
    ],
)
def test_which_requests_get_a_line(log: pytest.LogCaptureFixture, wanted: str, logged: list[int]) -> None:
    requests, _ = of(log_requests=wanted)
    for status in (200, 404, 429, 499, 500, 503, 504):
        answered(requests, status)
    assert [line["status"] for line in lines(log)] == logged
    assert len(requests.slow.slowest()) == 7


@pytest.mark.parametrize(("wanted", "status"), [("sampled", 200), ("errors", 500)])
def test_a_line_tells_how_many_had_none(log: pytest.LogCaptureFixture, wanted: str, status: int) -> None:
    requests, clock = of(log_requests=wanted, log_sample_per_s=2)
    for _ in range(10):
        answered(requests, status)
    assert [line.get("left_out") for line in lines(log)] == [None, None]
    clock.now_s = 0.5
    answered(requests, status)
    answered(requests, status)
    assert [line.get("left_out") for line in lines(log)] == [None, None, 8]
    requests.close()
    assert lines(log)[-1] == {"left_out": 1}
    requests.close()
    assert len(lines(log)) == 4


def test_all_leaves_none_out(log: pytest.LogCaptureFixture) -> None:
    requests, _ = of(log_requests="all", log_sample_per_s=1)
    for _ in range(100):
        answered(requests)
    assert len(lines(log)) == 100


def test_failures_are_warnings(log: pytest.LogCaptureFixture) -> None:
    requests, _ = of(log_requests="all")
    for status in (200, 400, 429, 500):
        answered(requests, status)
    assert [record.levelname for record in log.records] == ["INFO", "INFO", "WARNING", "WARNING"]


@pytest.mark.parametrize("hostile", ["", "a b", "a\nb", "ü", "a" * 129, 'a"b', "a\x1b[2J"])
def test_ids_that_do_not_stand_as_they_are(hostile: str) -> None:
    assert plain_id(hostile) == ""
    assert plain_id("Root=1-67891233:ab.c/d+e=") == "Root=1-67891233:ab.c/d+e="
