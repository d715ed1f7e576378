"""What the running service writes and shows for its operators: request lines, ``/debug``, metrics on their own port."""

from __future__ import annotations

import http.client
import json
import queue
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.end_to_end.conftest import Server, free_port, picture

Serve = Callable[..., AbstractContextManager[Server]]
KEY = "an-admin-key-of-tests"


def printed(server: Server) -> list[str]:
    """All lines of a service that was stopped."""
    while (line := server._lines.get(timeout=60)) is not None:
        server.log.append(line)
    return server.log


def requests_of(lines: list[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if line["logger"] == "service.request"]


def raw(server: Server, path: str, request_id: bytes) -> int:
    """A request that no well-behaved client would make."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.putrequest("GET", path)
    connection.putheader("X-Request-ID", request_id)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_every_request_is_one_whole_line(serve: Serve) -> None:
    with serve(RESNET_LOG_REQUESTS="all") as server:
        data = picture(1)
        sent = httpx.post(f"{server.url}/v1/classify", content=data, headers={"x-request-id": "a-1"}, timeout=30)
        assert sent.status_code == 200
        injected = '%0A{"logger":"service.request","id":"forged"}'
        raw(server, f"/v1/models/x{injected}", b'b" [2J{"forged":1}')
        raw(server, f"/v1/models?x={injected}", b"forged\x85\xff")
        server.stop()
        lines = printed(server)
    found = requests_of(lines)
    assert len(found) == 3
    first = found[0]
    assert {"id": "a-1", "method": "POST", "route": "/v1/classify", "status": 200, "images": 1}.items() <= first.items()
    assert first["bytes"] == len(data)
    assert all(0 < first[f"{stage}_ms"] < first["total_ms"] for stage in ("read", "decode", "queue", "infer"))
    assert [line["status"] for line in found[1:]] == [404, 400]
    assert all(re.fullmatch("[0-9a-f]{32}", line["id"]) for line in found[1:])
    assert not any("forged" in line for line in lines)


def test_a_reader_that_stalls_stops_no_request(serve: Serve) -> None:
    """The lines of 600 requests are more than a pipe holds."""
    with serve(RESNET_LOG_REQUESTS="all") as server:
        stalled = server._lines = queue.Queue(1)  # where the reader puts its second line, it waits
        try:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                assert [client.get("/v1/models").status_code for _ in range(600)] == [200] * 600
            assert stalled.full()
        finally:  # the reader goes on, or the service could not be stopped
            with stalled.mutex:
                stalled.maxsize = 10**6
                stalled.not_full.notify_all()
        server.stop()
        lines = printed(server)
    assert len(requests_of(lines)) == 600


def test_a_sample_says_how_many_it_left_out(serve: Serve) -> None:
    with serve(RESNET_LOG_REQUESTS="sampled", RESNET_LOG_SAMPLE_PER_S="0.001") as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert [client.get("/v1/models").status_code for _ in range(5)] == [200] * 5
        server.stop()
        found = requests_of(printed(server))
    assert [line["message"] for line in found] == ["request", "requests without a line"]
    assert found[1]["left_out"] == 4


def test_text_and_silence(serve: Serve) -> None:
    with serve(RESNET_LOG_REQUESTS="off", RESNET_LOG_FORMAT="text") as server:
        httpx.get(f"{server.url}/v1/models")
        assert httpx.get(f"{server.url}/debug").status_code == 403
        server.stop()
        lines = printed(server)
    assert any(re.search(r" INFO    service\.runtime: ready after ", line) for line in lines)
    assert not any("service.request" in line or line.startswith("{") for line in lines)


def test_metrics_on_a_port_of_their_own_are_all_workers(serve: Serve) -> None:
    port = free_port()
    with serve(workers=2, RESNET_METRICS_PORT=str(port), RESNET_ADMIN_KEY=KEY) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        assert "/metrics" not in httpx.get(f"{server.url}/openapi.json", timeout=30).json()["paths"]
        for _ in range(4):  # each on a connection of its own, which either worker may take
            page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
            assert page.status_code == 200
            assert "resnet_workers_ready 2.0" in page.text
        state = httpx.get(f"{server.url}/debug", headers={"authorization": f"Bearer {KEY}"}).json()
        assert state["worker"]["workers"] == 2
        assert KEY not in json.dumps(state)
        assert server.stop() == 0
