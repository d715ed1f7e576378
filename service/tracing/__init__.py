"""Traces: what is noted of requests on their way, and the interface that the service has to them.

Off by default, and then no more than a context variable that is looked at once an image. Nothing here imports
OpenTelemetry; ``service.tracing.otlp`` does, and is imported where ``RESNET_TRACES`` says so. What a request does is
noted as plain times, and becomes spans when its answer is sent (``service.tracing.spans``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from service.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext
    from starlette.datastructures import Headers

Interval = tuple[float, float]
"""Begin and end, in seconds of ``time.perf_counter``."""


class Batch:
    """A batch that has an image of a recorded request; a block lasts as long as it is computed.

    Times are in seconds of ``time.perf_counter``.

    size    -- images in it, of any request.
    ended_s -- None while it is computed.
    span    -- None until a request in it ended.
    """

    __slots__ = ("began_s", "ended_s", "failed", "images", "model", "size", "span", "version")

    def __init__(self, model: str, version: str, size: int, images: Sequence[Note], began_s: float) -> None:
        self.model = model
        self.version = version
        self.size = size
        self.images = list(images)
        self.began_s = began_s
        self.ended_s: float | None = None
        self.failed = False
        self.span: SpanContext | None = None
        for image in images:
            image.batch = self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed = kind is not None
        self.ended_s = perf_counter()


class Note:
    """One image of a recorded request: written by the thread that has it, read when the request ends.

    error -- the code of what went wrong with it.
    """

    __slots__ = ("batch", "decode", "error", "infer", "number", "queued_s", "request")

    def __init__(self, request: Request, number: int) -> None:
        self.request = request
        self.number = number
        self.queued_s = perf_counter()
        self.decode: Interval | None = None
        self.infer: Interval | None = None
        self.batch: Batch | None = None
        self.error = ""


class Request:
    """A recorded request under way."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.images: list[Note] = []

    def note(self) -> Note:
        made = Note(self, len(self.images))
        self.images.append(made)
        return made


CURRENT: Final[ContextVar[Request | None]] = ContextVar("request", default=None)
"""The recorded request that this task works for."""


def note() -> Note | None:
    """Where what becomes of an image of this request is noted; None where nobody records it."""
    request = CURRENT.get()
    return None if request is None else request.note()


def ids() -> tuple[str, str] | None:
    """Trace and span of the recorded request that this task works for, in hexadecimal digits, as logs name them."""
    request = CURRENT.get()
    if request is None:
        return None
    span = request.span.get_span_context()
    return f"{span.trace_id:032x}", f"{span.span_id:016x}"


class Traced:
    """One request as its handler sees it: a block that ends when the answer is sent. This one records nothing.

    headers -- for the answer.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()

    def answered(self, status: int, model: str, version: str, rpc_code: str = "") -> None:
        """What it came to; ``status`` is HTTP's, of gRPC's calls too, 499 where the client left."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


UNTRACED: Final = Traced()


class Tracing:
    """Makes traces of requests. This one makes none."""

    def http(self, scope: Mapping[str, Any], headers: Headers, route: str, request_id: str) -> Traced:
        """A request over HTTP; ``route`` is the pattern of its path."""
        return UNTRACED

    def rpc(self, service: str, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Traced:
        """A call over gRPC."""
        return UNTRACED

    async def close(self) -> None:
        """Send what is not sent yet, if that is quick."""


def check_tracing(settings: TraceSettings) -> None:
    """Before any worker starts: ``ConfigError`` where traces are asked for and cannot be had."""
    if settings.traces == "otlp":
        from service.tracing import otlp

        otlp.check()


def start_tracing(settings: TraceSettings) -> Tracing:
    """As set; in the worker that it is for, as it may start a thread."""
    if settings.traces == "off":
        return Tracing()
    from service.tracing import otlp

    return otlp.start()
