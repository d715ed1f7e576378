"""Requests that two readers of HTTP may take for different things, and an exact reader of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HIDDEN: Final = b"GET /v2?hidden HTTP/1.1\r\nHost: a\r\nX-Request-ID: hidden\r\n\r\n"
"""A request inside of another one, which must never be answered."""

_CHUNKED_HIDDEN: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)


def _post(headers: bytes, body: bytes) -> bytes:
    return b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + body


def _get(rest: bytes) -> bytes:
    return b"GET /v1/models HTTP/1.1\r\n" + rest


_ENDS_EARLY: Final = b"0\r\n\r\n" + HIDDEN
_LENGTH: Final = b"Content-Length: %d\r\n" % len(_ENDS_EARLY)

SMUGGLING: Final = {
    "CL.TE": _post(_LENGTH + b"Transfer-Encoding: chunked\r\n", _ENDS_EARLY),
    "TE.CL": _post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", _CHUNKED_HIDDEN),
    "CL.TE, unknown coding": _post(_LENGTH + b"Transfer-Encoding: identity\r\n", _ENDS_EARLY),
    "TE.TE, twice": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", _ENDS_EARLY),
    "TE.TE, second unknown": _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", _ENDS_EARLY),
    "TE.TE, xchunked": _post(b"Transfer-Encoding: xchunked\r\n", _ENDS_EARLY),
    "TE.TE, not last": _post(b"Transfer-Encoding: chunked, identity\r\n", _ENDS_EARLY),
    "TE.TE, two codings": _post(b"Transfer-Encoding: gzip, chunked\r\n", _ENDS_EARLY),
    "TE.TE, blank before colon": _post(b"Transfer-Encoding : chunked\r\n", _ENDS_EARLY),
    "TE.TE, tab before colon": _post(b"Transfer-Encoding\t: chunked\r\n", _ENDS_EARLY),
    "TE.TE, leading blank": _post(b" Transfer-Encoding: chunked\r\n", _ENDS_EARLY),
    "TE.TE, vertical tab": _post(b"Transfer-Encoding: \x0bchunked\r\n", _ENDS_EARLY),
    "TE.TE, quoted": _post(b'Transfer-Encoding: "chunked"\r\n', _ENDS_EARLY),
    "TE.TE, folded": _post(b"Transfer-Encoding:\r\n chunked\r\n", _ENDS_EARLY),
    "TE.TE, empty": _post(b"Transfer-Encoding:\r\n", _ENDS_EARLY),
    "TE.TE, in another header": _post(b"X: x\nTransfer-Encoding: chunked\r\n", _ENDS_EARLY),
    "TE in HTTP/1.0": b"POST /v1/classify HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + _ENDS_EARLY,
    "CL twice, the same": _post(b"Content-Length: 0\r\nContent-Length: 0\r\n", HIDDEN),
    "CL twice, different": _post(b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(HIDDEN), HIDDEN),
    "CL as a list": _post(b"Content-Length: 0, %d\r\n" % len(HIDDEN), HIDDEN),
    "CL with a sign": _post(b"Content-Length: +0\r\n", HIDDEN),
    "CL negative": _post(b"Content-Length: -1\r\n", HIDDEN),
    "CL in hex": _post(b"Content-Length: 0x0\r\n", HIDDEN),
    "CL with an underscore": _post(b"Content-Length: 1_0\r\n", HIDDEN),
    "CL of two numbers": _post(b"Content-Length: 0 0\r\n", HIDDEN),
    "CL that overflows": _post(b"Content-Length: 18446744073709551616\r\n", HIDDEN),
    "CL empty": _post(b"Content-Length:\r\n", HIDDEN),
    "folded header": _get(b"Host: a\r\nX: 1\r\n 2\r\n\r\n" + HIDDEN),
    "bare LF": b"GET /v1/models HTTP/1.1\nHost: a\n\n" + HIDDEN,
    "bare LF in the head": _get(b"Host: a\nX: b\r\n\r\n" + HIDDEN),
    "bare CR in the head": _get(b"Host: a\rX: b\r\n\r\n" + HIDDEN),
    "NUL in a name": _get(b"Host: a\r\nX\0: b\r\n\r\n" + HIDDEN),
    "NUL in a value": _get(b"Host: a\r\nX: \0b\r\n\r\n" + HIDDEN),
    "blank in a name": _get(b"Host: a\r\nX Y: b\r\n\r\n" + HIDDEN),
    "no name": _get(b"Host: a\r\n: b\r\n\r\n" + HIDDEN),
    "no colon": _get(b"Host: a\r\nX\r\n\r\n" + HIDDEN),
    "two hosts": _get(b"Host: a\r\nHost: b\r\n\r\n" + HIDDEN),
    "no host": _get(b"X: a\r\n\r\n" + HIDDEN),
    "chunk size with 0x": _post(b"Transfer-Encoding: chunked\r\n", b"0x0\r\n\r\n" + HIDDEN),
    "chunk size negative": _post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n" + HIDDEN),
    "chunk size and a blank": _post(b"Transfer-Encoding: chunked\r\n", b"0 \r\n\r\n" + HIDDEN),
    "chunk size that overflows": _post(b"Transfer-Encoding: chunked\r\n", b"10000000000000000\r\n\r\n" + HIDDEN),
    "chunk longer than it says": _post(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n0\r\n\r\n" + HIDDEN),
    "chunks by bare LF": _post(b"Transfer-Encoding: chunked\r\n", b"0\n\n" + HIDDEN),
    "bare LF in a chunk's extension": _post(b"Transfer-Encoding: chunked\r\n", b"1;\na\r\n0\r\n\r\n" + HIDDEN),
    "upgrade with a body": _post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n", HIDDEN),
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /v1/models\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\nHost: a\r\n\r\n" + HIDDEN,
    "unknown method": b"SMUGGLE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "method in small letters": b"get /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
}
"""Each gets one 400, and its connection is closed."""

ONE_REQUEST: Final = {
    "in a body of its length": (
        404,
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    ),
    "in a chunk": (404, b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED_HIDDEN),
    "in a body that was answered before it came": (
        405,
        b"PUT /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n",
    ),
    "behind Connection: close": (200, _get(b"Host: a\r\nConnection: close\r\n\r\n" + HIDDEN)),
    "behind HTTP/1.0": (200, b"GET /v1/models HTTP/1.0\r\n\r\n" + HIDDEN),
    "behind an upgrade": (200, _get(b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN)),
    "in a trailer": (
        404,
        b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Request-ID: hidden\r\n\r\n",
    ),
    "to an absolute target": (404, b"GET http://evil/x HTTP/1.1\r\nHost: a\r\n\r\n"),
}
"""Each is one request with that status; what is hidden in or behind it is none."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def request_id(self) -> str:
        return self.headers.get(b"x-request-id", b"").decode("latin-1")


def replies(data: bytes, heads: int = 0) -> tuple[list[Reply], bytes]:
    """The answers in ``data``, and what is left of a last one that broke off; ``ValueError`` for anything else.

    The answer to each of ``heads`` requests, at most, may have a length and no body.
    """
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            break
        first, *lines = head.split(b"\r\n")
        version, _, status = first.partition(b" ")
        if version != b"HTTP/1.1" or not status[:3].isdigit() or status[3:4] not in (b" ", b""):
            raise ValueError(f"no status line: {first[:80]!r}")
        if status.startswith(b"100"):
            data = rest
            continue
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b": ")
            if not colon or name.lower() != name:
                raise ValueError(f"no header: {line[:80]!r}")
            headers[name] = value
        length = int(headers.get(b"content-length", b"0"))
        if heads and not rest.startswith(b"{") and (not rest or rest.startswith(b"HTTP/")):
            length, heads = 0, heads - 1
        if len(rest) < length:
            break
        found.append(Reply(int(status[:3]), headers, rest[:length]))
        data = rest[length:]
    return found, data
