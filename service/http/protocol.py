"""HTTP/1.1 on a connection: uvicorn's protocol, bounded where it has no bounds.

Heads are bounded in bytes, number and time, pipelined requests in number. What is no HTTP, or could be read by a proxy
in front of us as something else, is refused and ends the connection; the refusal never overtakes an answer to a request
before it. llhttp already refuses what smuggling is made of: a length beside chunks, two lengths, folded lines, bare LF,
blanks before a colon (tests/security holds each).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import BadRequest, HeadTooLarge, ServiceError, SlowClient, UriTooLong
from service.http.answers import error_answer
from service.http.connections import Connections, only_probes
from service.http.refusing import Refuser, RefusingProtocol
from service.http.request_ids import new_id

MAX_HEAD_BYTES: Final = 32 * 2**10
MAX_HEADERS: Final = 100
MAX_URI_BYTES: Final = 8 * 2**10
MAX_PIPELINED: Final = 16

_REASONS: Final[dict[type[ServiceError], str]] = {BadRequest: "bad_http", SlowClient: "slow_client"}
_LOOKED_AT: Final = frozenset((b"expect", b"host", b"transfer-encoding"))


def guarded(connections: Connections, refuser: Refuser | None = None) -> type[asyncio.Protocol]:
    """The protocol for uvicorn's configuration, of connections that ``connections`` keeps.

    ``refuser`` is asked what is to be refused at once.
    """
    return type("Guarded", (GuardedProtocol,), {"among": connections, "refuser": refuser})


class GuardedProtocol(RefusingProtocol):
    """One connection. ``since`` is when it began to wait for what it waits for."""

    among: Connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = self.loop.time()
        self._in_message = False  # from a request's first byte to its body's last
        self._in_body = False
        self._beside = 0  # bytes that were no body since a head, body or request ended: what the parser may keep
        self._shared = False  # a request began in the same data that another one ended in, so ``_beside`` lacks some
        self._hosts = 0
        self._closing = False
        self._unsent = 0  # bytes of answers, when they were last looked at
        self._refused = False
        self._refusal: ServiceError | None = None  # to be told once the answers before it are
        self._running: RequestResponseCycle | None = None  # what is answered now, or was last

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.among.opened(self):
            self.app = only_probes(self.app, self.among.counted)

    def connection_lost(self, exc: Exception | None) -> None:
        self.among.closed(self)
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn tells the latest request alone
            self._running.disconnected = True
            self._running.message_event.set()

    @property
    def waits_for(self) -> str:
        if self._closing or self.transport.is_closing():
            if not self._closing:
                self._closing, self.since = True, self.loop.time()
            self._look_at_unsent()
            return "closing"
        if self.flow.write_paused:
            self._look_at_unsent()
            return "taking"
        if self._answering:
            return ""
        if self._refused:
            return "refused"
        if self._in_body:
            return "rest"
        return "head" if self._in_message or self.cycle is None else "idle"

    def _look_at_unsent(self) -> None:
        """A client that takes some of what was written has its time anew."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self.since = unsent, self.loop.time()

    @property
    def _answering(self) -> bool:
        return bool(self.pipeline) or (self._running is not None and not self._running.response_complete)

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def time_out(self) -> None:
        if self._in_message:
            self._refuse(SlowClient("the request's headers did not come in time"))
        else:
            self.transport.close()  # it never said anything, so there is nothing to answer

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_message:
            self._shared = False
        self._beside += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered, and that is all: the parser would take what follows for another request.
            self._refused = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServiceError) else BadRequest(f"this is no valid HTTP: {error}"))
        else:
            if self._beside > MAX_HEAD_BYTES:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.since = self.loop.time()
        self._in_message = True
        self._hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer: nothing here has a use for it, and it must not pass for a header
        name = name.lower()
        if name in _LOOKED_AT:
            self._look_at(name, value)
        self.headers.append((name, value))

    def _look_at(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise BadRequest("the Transfer-Encoding is not taken; send the body chunked, or with a Content-Length")
            if self.parser.get_http_version() != "1.1":
                raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        if len(self.url) > MAX_URI_BYTES or len(self.headers) > MAX_HEADERS:
            raise self._too_large()
        if (self._shared or self._beside > MAX_HEAD_BYTES) and self._head_bytes() > MAX_HEAD_BYTES:
            raise self._too_large()
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken")
        if self._hosts > 1 or (not self._hosts and version == "1.1"):
            raise BadRequest("a request has one Host header")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise BadRequest("too many requests are sent without waiting for their answers")
        upgrade = self.parser.should_upgrade()
        if upgrade and self._brings_more():
            raise BadRequest("nothing but HTTP/1.1 is spoken; send the request without Upgrade")
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False
        self._in_body = True
        self._beside = 0

    def _brings_more(self) -> bool:
        """Whether what follows the head is no body to the parser, and is one to others."""
        names = {name for name, _ in self.headers}
        return self.parser.get_method() == b"CONNECT" or not names.isdisjoint((b"content-length", b"transfer-encoding"))

    def _too_large(self) -> ServiceError:
        if self._in_message and len(self.url) > MAX_URI_BYTES:
            return UriTooLong(f"the request's target is too long; at most {MAX_URI_BYTES} bytes are taken")
        return HeadTooLarge(f"at most {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes together are taken")

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = self._in_body = False
        self._beside, self._shared = 0, True
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False  # no WebSockets

    # What is answered

    @property
    def _simple(self) -> bool:
        return super()._simple and not self.among.stopping  # then answers say that the connection ends

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, without its timer: idle connections are swept."""
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._tell(self._refusal)

    def _refuse(self, error: ServiceError) -> None:
        """Read no further, and say why behind the answers to the requests before."""
        self._refused = True
        self.among.counted(_REASONS.get(type(error), "head_too_large"))
        if self._in_body and (self._dropping or not self._leave_request()):
            self.transport.close()
        elif self._answering:
            self._refusal = error
        else:
            self._tell(error)

    def _leave_request(self) -> bool:
        """The request whose body is broken goes no further. Whether it has no answer yet."""
        cycle = self.cycle
        if cycle.response_started:
            return False
        if self.pipeline:
            self.pipeline.popleft()  # the latest
        else:
            self._running = None
        self.cycle = self._running  # type: ignore[assignment]  # None at first in uvicorn, too
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _tell(self, error: ServiceError) -> None:
        """Write the refusal; then wait a moment for the client to read it, as closing with unread data resets."""
        self._refusal, self.since = None, self.loop.time()
        if self.transport.is_closing():
            return
        asked = new_id()
        answer = error_answer(error, asked, path=self.url.decode("latin-1") if self._in_message else "")
        self._write(answer, asked, (b"connection", b"close"))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
