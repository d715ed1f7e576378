"""OpenTelemetry as its own variables set it (``OTEL_...``): spans to a collector by OTLP over HTTP.

A thread of the SDK's sends them, from a queue that drops what it has no room for; no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from service import __version__
from service.config import ConfigError, variable
from service.tracing.spans import SpanTracing

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

logger = logging.getLogger(__name__)

FLUSH_S: Final = 3.0

_ON: Final = f"{variable('traces')}=otlp"
# What they warn of comes from clients' headers, and would be in the log as often as a client likes.
_TOLD_BY_CLIENTS: Final = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")


class OtlpTracing(SpanTracing):
    """Spans by way of ``processor``, which the SDK's variables have set up."""

    def __init__(self, processor: BatchSpanProcessor, flush_s: float = FLUSH_S) -> None:
        super().__init__(processor, _resource())
        self._processor = processor
        self._flush_s = flush_s

    async def close(self) -> None:
        """Send what is queued; a collector that is away or slow gets ``flush_s`` for it."""
        # A thread of our own, which holds up nothing when it is left: the SDK may wait for half a minute.
        thread = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, self._flush_s)
        if thread.is_alive():
            logger.warning("traces: the collector took too long; the last spans are lost")


def check() -> None:
    """``ConfigError`` where the exporter is not installed or OpenTelemetry refuses its variables."""
    _processor().shutdown()  # type: ignore[no-untyped-call]


def start() -> OtlpTracing:
    """For this process."""
    for name in _TOLD_BY_CLIENTS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return OtlpTracing(_processor())


def _processor() -> BatchSpanProcessor:
    exporter = _exporter_class()
    try:
        return BatchSpanProcessor(exporter())
    except ValueError as error:
        raise ConfigError(f"{_ON}: a variable of OpenTelemetry's is wrong: {error}") from error


def _exporter_class() -> type[OTLPSpanExporter]:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{_ON}: the exporter is not installed; pip install opentelemetry-exporter-otlp-proto-http "
            "(the extra `traces`)"
        ) from error
    return OTLPSpanExporter


def _resource() -> Resource:
    """Who sends the spans; what the variables say of it comes first."""
    said = OTELResourceDetector().detect().attributes
    ours: dict[str, str | int] = {
        "service.name": "resnet-serving",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    return Resource.create({name: value for name, value in ours.items() if name not in said})
