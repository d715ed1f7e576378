"""What was noted of requests, as OpenTelemetry's spans.

A request has a span, and below it ``decode``, ``queue`` and ``infer`` of each image. A batch has a trace of its own,
as it belongs to no one request: it is linked to the requests in it, and their ``infer`` to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes, AttributeValue
from starlette.datastructures import Headers

from service.tracing import CURRENT, UNTRACED, Batch, Interval, Note, Request, Traced, Tracing

logger = logging.getLogger(__name__)

_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
# Asked every few seconds by what watches the service.
_WATCHED: Final = frozenset({"/metrics", "/v2/health/live", "/v2/health/ready", "ServerLive", "ServerReady"})
_MOST_CHARACTERS: Final = 256
_PROPAGATOR: Final = TraceContextTextMapPropagator()
# RPC's conventions are not stable yet, so not among the package's public names.
_RPC_SYSTEM: Final = "rpc.system.name"
_RPC_METHOD: Final = "rpc.method"
_RPC_STATUS: Final = "rpc.response.status_code"


class SpanTracing(Tracing):
    """Spans to ``processor``. Begins and ends requests on the event loop.

    sampler -- of requests; the SDK's own variables say it by default. What is below a recorded request is recorded,
               and so is a batch with one in it.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource, sampler: Sampler | None = None) -> None:
        self._requests = _tracer(processor, resource, sampler)
        self._inner = _tracer(processor, resource, ALWAYS_ON)

    def http(self, scope: Mapping[str, Any], headers: Headers, route: str, request_id: str) -> Traced:
        """A request over HTTP; none of the routes that are asked all the time."""
        if route in _WATCHED:
            return UNTRACED
        method = scope["method"]
        known = method in _METHODS
        attributes: dict[str, AttributeValue] = {
            http_attributes.HTTP_REQUEST_METHOD: method if known else "_OTHER",
            url_attributes.URL_SCHEME: scope.get("scheme", "http"),
            network_attributes.NETWORK_PROTOCOL_VERSION: scope.get("http_version", "1.1"),
            "resnet.request_id": request_id,
        }
        name = method if known else "HTTP"
        if route != "other":
            attributes[http_attributes.HTTP_ROUTE] = route
            # Not the path that was sent: who knows a job's may read it, and some put keys where they do not belong.
            attributes[url_attributes.URL_PATH] = route
            name = f"{name} {route}"
        if agent := headers.get("user-agent"):
            attributes[user_agent_attributes.USER_AGENT_ORIGINAL] = agent[:_MOST_CHARACTERS]
        return self._begin(name, attributes, headers.getlist("traceparent"), headers.getlist("tracestate"))

    def rpc(self, service: str, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Traced:
        """A call over gRPC; one message of a stream is one."""
        if method in _WATCHED:
            return UNTRACED
        name = f"{service}/{method}"
        attributes: dict[str, AttributeValue] = {_RPC_SYSTEM: "grpc", _RPC_METHOD: name}
        parents = [str(value) for key, value in metadata if key == "traceparent"]
        states = [str(value) for key, value in metadata if key == "tracestate"]
        return self._begin(name, attributes, parents, states)

    def _begin(self, name: str, attributes: Attributes, parents: list[str], states: list[str]) -> Traced:
        CURRENT.set(None)  # a pipelined request begins in the context of the one before
        try:
            span = self._requests.start_span(name, _parent(parents, states), SpanKind.SERVER, attributes)
            return _TracedRequest(span, self._inner) if span.is_recording() else UNTRACED
        except Exception:
            logger.exception("a trace could not be begun")
            return UNTRACED


def _tracer(processor: SpanProcessor, resource: Resource, sampler: Sampler | None) -> Tracer:
    # Not shut down at exit: that would take as long as the collector likes.
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("resnet-serving")


def _parent(parents: list[str], states: list[str]) -> Context:
    """What the client says this is a part of; nothing where it says so wrongly, or twice."""
    if len(parents) != 1:
        return Context()
    return _PROPAGATOR.extract({"traceparent": parents[0], "tracestate": ",".join(states)}, Context())


class _TracedRequest(Traced):
    """A recorded request: what is noted between begin and end becomes its spans at the end."""

    def __init__(self, span: Span, inner: Tracer) -> None:
        self._span = span
        self._inner = inner
        self._request = Request(span)
        # Between the clock that times are noted by and the one that spans are told in, as it is now.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        context = span.get_span_context()
        self.headers = ((b"traceresponse", b"00-%032x-%016x-01" % (context.trace_id, context.span_id)),)

    def __enter__(self) -> Self:
        CURRENT.set(self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        CURRENT.set(None)
        try:
            self._end(time.perf_counter())
        except Exception:
            logger.exception("a trace could not be ended")

    def answered(self, status: int, model: str, version: str, rpc_code: str = "") -> None:
        key = _RPC_STATUS if rpc_code else http_attributes.HTTP_RESPONSE_STATUS_CODE
        attributes: dict[str, AttributeValue] = {key: rpc_code or status}
        if model:
            attributes |= {"resnet.model.name": model, "resnet.model.version": version}
        if status >= 500:  # a client's mistake is no error of the server's
            attributes[error_attributes.ERROR_TYPE] = rpc_code or str(status)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes(attributes)

    def _end(self, now_s: float) -> None:
        images = self._request.images
        self._span.set_attribute("resnet.images", len(images))
        parent = set_span_in_context(self._span, Context())
        for image in images:
            self._image(image, parent, now_s)
        self._span.end(self._ns(now_s))
        images.clear()  # each refers to this request

    def _image(self, image: Note, parent: Context, now_s: float) -> None:
        attributes: dict[str, AttributeValue] = {"resnet.image": image.number}
        decode, infer, batch = image.decode, image.infer, image.batch
        if decode is not None:
            self._child("decode", parent, decode, attributes, error="" if infer else image.error)
        if batch is None:
            if not image.error:  # the request ended first
                self._child("queue", parent, (decode[1] if decode else image.queued_s, now_s), attributes)
            return
        ahead = decode is not None and decode[0] < batch.began_s
        self._child("queue", parent, (decode[1] if decode and ahead else image.queued_s, batch.began_s), attributes)
        if batch.span is None and batch.ended_s is not None:
            batch.span = self._batch(batch, batch.ended_s)
        if infer is not None and batch.span is not None:
            attributes["resnet.batch.size"] = batch.size
            self._child("infer", parent, infer, attributes, [Link(batch.span)], image.error)

    def _batch(self, batch: Batch, ended_s: float) -> SpanContext:
        """Its spans, made by the first of its requests that ends."""
        requests = {id(image.request): image.request for image in batch.images}.values()
        links = [Link(request.span.get_span_context()) for request in requests]
        attributes: dict[str, AttributeValue] = {
            "resnet.model.name": batch.model,
            "resnet.model.version": batch.version,
            "resnet.batch.size": batch.size,
        }
        began_ns = self._ns(batch.began_s)
        span = self._inner.start_span("batch", Context(), SpanKind.INTERNAL, attributes, links, began_ns)
        infer = next((image.infer for image in batch.images if image.infer), None)
        if infer is not None:
            self._child("infer", set_span_in_context(span, Context()), infer, {})
        if batch.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(ended_s))
        batch.images.clear()  # each refers to this batch
        return span.get_span_context()

    def _child(
        self,
        name: str,
        parent: Context,
        when: Interval,
        attributes: dict[str, AttributeValue],
        links: Sequence[Link] = (),
        error: str = "",
    ) -> None:
        """A span from begin to end; ``error`` is a code of service/errors.py."""
        if error:
            attributes = {**attributes, error_attributes.ERROR_TYPE: error}
        span = self._inner.start_span(name, parent, SpanKind.INTERNAL, attributes, links, self._ns(when[0]))
        if error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(when[1]))

    def _ns(self, seconds: float) -> int:
        """A time of ``time.perf_counter`` in nanoseconds since 1970."""
        return int(seconds * 1e9) + self._offset_ns
