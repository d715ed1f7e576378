"""Refusals that cost next to nothing: written while the request's head is parsed, before there is anything of it.

In overload most requests are refused, and what they cost is taken from those that are answered. A task, the ASGI
messages and the copies of a body are four fifths of it, so a full service does without them.
"""

from __future__ import annotations

from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.http.answers import Answer

Head = list[tuple[bytes, bytes]]


class Refuser(Protocol):
    """Knows what is to be refused at once."""

    @property
    def busy(self) -> bool:
        """Whether anything is; asked for each request."""

    def refusal(self, method: str, path: str, headers: Head) -> tuple[Answer, str] | None:
        """The answer, counted already, with the request's id; None for a request that goes on as others do."""


class RefusingProtocol(HttpToolsProtocol):
    """One connection. What is refused has no cycle: its body is parsed, to find the next request, and dropped."""

    refuser: Refuser | None = None
    _dropping = False

    def on_headers_complete(self) -> None:
        refuser = self.refuser
        self._dropping = refuser is not None and refuser.busy and self._simple and self._refuse_at_once(refuser)
        if not self._dropping:
            super().on_headers_complete()

    @property
    def _simple(self) -> bool:
        """Whether nothing is to be done but to write: not to wait for an answer before it or for a client that does
        not read, not to close, and the body comes unasked."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.expect_100_continue
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _refuse_at_once(self, refuser: Refuser) -> bool:
        path, _, _ = self.url.partition(b"?")
        refusal = refuser.refusal(self.parser.get_method().decode("ascii"), path.decode("latin-1"), self.headers)
        if refusal is None or self.transport.is_closing():
            return False
        self._write(*refusal)
        return True

    def _write(self, answer: Answer, request_id: str, *more: tuple[bytes, bytes]) -> None:
        """Answer without a cycle, with ``more`` headers; of those of one name the last one counts."""
        headers = {
            **dict(self.server_state.default_headers),
            **dict(answer.headers),
            b"x-request-id": request_id.encode(),
            b"content-length": b"%d" % len(answer.body),
            **dict(more),
        }
        lines = b"".join([b"%s: %s\r\n" % header for header in headers.items()])
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[answer.status], lines, answer.body))

    def on_body(self, body: bytes) -> None:
        if not self._dropping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._dropping:
            self._dropping = False
            self.on_response_complete()
        else:
            super().on_message_complete()
