"""The service sends its spans to a collector: here a small one that keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.end_to_end.conftest import free_port, picture, running

TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
PARENT = bytes.fromhex("00f067aa0ba902b7")
HEADERS = {"traceparent": f"00-{TRACE.hex()}-{PARENT.hex()}-01"}


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, in protobuf."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[ResourceSpans] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Span]:
        return [span for of in self.received for scope in of.scope_spans for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        known = self.path == "/v1/traces" and self.headers.get("api-key") == "secret"
        if known:
            self.server.received += ExportTraceServiceRequest.FromString(body).resource_spans
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if known else 401)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Not among the tests' output."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def test_a_whole_trace_reaches_the_collector(collector: Collector) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "classifier",
        "OTEL_BSP_SCHEDULE_DELAY": "60000",  # so that they come when the service stops
    }
    with running(RESNET_TRACES="otlp", **variables) as server:
        files = [("image", (f"{seed}.jpg", picture(seed), "image/jpeg")) for seed in (0, 1)]
        answer = httpx.post(f"{server.url}/v1/classify", files=files, headers=HEADERS, timeout=60)
        assert answer.status_code == 200
        assert httpx.get(f"{server.url}/livez", headers=HEADERS, timeout=60).status_code == 200
        assert server.stop() == 0
    (resource,) = {of.resource.SerializeToString(): of.resource for of in collector.received}.values()
    assert {a.key: a.value.string_value for a in resource.attributes}["service.name"] == "classifier"
    (request,) = (span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER)
    assert (request.name, request.trace_id, request.parent_span_id) == ("POST /v1/classify", TRACE, PARENT)
    assert answer.headers["traceresponse"] == f"00-{TRACE.hex()}-{request.span_id.hex()}-01"
    of_request = [span for span in collector.spans if span.trace_id == TRACE and span is not request]
    assert {span.parent_span_id for span in of_request} == {request.span_id}
    assert sorted(span.name for span in of_request) == sorted(["decode", "queue", "infer"] * 2)
    batches = [span for span in collector.spans if span.name == "batch"]
    assert batches
    for batch in batches:
        assert not batch.parent_span_id
        assert [link.span_id for link in batch.links] == [request.span_id]
        assert [span.name for span in collector.spans if span.parent_span_id == batch.span_id] == ["infer"]
    linked = {link.span_id for span in of_request for link in span.links}
    assert linked == {batch.span_id for batch in batches}


def test_without_a_collector_requests_are_answered_all_the_same() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with running(RESNET_TRACES="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=nobody, OTEL_BSP_SCHEDULE_DELAY="10") as server:
        for seed in range(8):
            answer = httpx.post(f"{server.url}/v1/classify", content=picture(seed), timeout=60)
            assert answer.status_code == 200
        assert server.stop() == 0
