from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from starlette.datastructures import Headers

from service.config import ConfigError
from service.settings import TraceSettings
from service.tracing import Tracing, check_tracing, otlp, start_tracing

OTLP = TraceSettings(traces="otlp")
SCOPE = {"method": "GET", "path": "/v1/models", "scheme": "http"}


class Slow(SpanExporter):
    """A collector that takes spans, and answers when the test lets it."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        self.asked.set()
        self.released.wait(30)
        return SpanExportResult.SUCCESS


@pytest.fixture
def slow() -> Iterator[Slow]:
    exporter = Slow()
    yield exporter
    exporter.released.set()


def record(tracing: Tracing) -> None:
    with tracing.http(SCOPE, Headers(), "/v1/models", "x") as traced:
        traced.answered(200, "", "")


def test_off_loads_nothing_of_opentelemetrys() -> None:
    code = (
        "import sys; from service.tracing import *; from service.tracing import note, start_tracing\n"
        "from service.settings import TraceSettings\n"
        "settings = TraceSettings(); check_tracing(settings)\n"
        "with start_tracing(settings).http({}, {}, '/', 'x') as traced: assert note() is None and not traced.headers\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_not_installed_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"^RESNET_TRACES=otlp: .*pip install opentelemetry-exporter-otlp-proto-http"):
        check_tracing(OTLP)


def test_what_opentelemetry_refuses_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000")
    with pytest.raises(ConfigError, match=r"^RESNET_TRACES=otlp: .*max_export_batch_size"):
        check_tracing(OTLP)


def test_who_sends_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = otlp._resource().attributes
    assert ours["service.name"] == "resnet-serving"
    assert ours["service.instance.id"] != otlp._resource().attributes["service.instance.id"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7,deployment.environment.name=test")
    said = otlp._resource().attributes
    assert [said[name] for name in ("service.name", "service.version", "deployment.environment.name")] == [
        "mine",
        "7",
        "test",
    ]


def test_a_slow_collector_holds_up_neither_requests_nor_the_end(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    processor = BatchSpanProcessor(slow, max_queue_size=2, max_export_batch_size=1)
    tracing = otlp.OtlpTracing(processor, flush_s=0.01)
    with caplog.at_level(logging.ERROR, "opentelemetry"):
        record(tracing)
        assert slow.asked.wait(30)
        for _ in range(100):  # far more than the queue holds
            record(tracing)
    with caplog.at_level(logging.WARNING, "service"):
        asyncio.run(tracing.close())
    assert "the last spans are lost" in caplog.text


def test_a_collector_that_is_away_ends_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        tracing = start_tracing(OTLP)
        record(tracing)
        asyncio.run(tracing.close())
