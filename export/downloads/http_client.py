"""GET over HTTP for the downloads: timeouts, redirects, a token, another attempt.

    DownloadError
    ├── Unreachable   no whole answer came, again and again
    └── Refused       the server answers with an error

No error of httpx travels further.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import httpx
from rich.console import Console

from export.errors import ExportError

ATTEMPTS: Final = 5  # in a row without a new byte
_TIMEOUT: Final = httpx.Timeout(30, connect=10)  # seconds; the first is for each read, not for a whole file
_MAX_PAUSE_S: Final = 60
_MAX_REDIRECTS: Final = 10
_TRANSIENT: Final = {408, 425, 429, 500, 502, 503, 504}
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")

T = TypeVar("T")


class DownloadError(ExportError):
    """A file cannot be had, or is not the one that was published; the message names its URL."""


class Unreachable(DownloadError):
    """No whole answer came, again and again."""


class Refused(DownloadError):
    """The server answers with an error; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Again(Exception):
    """This attempt failed, the next may not; ``after_s`` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, after_s: int | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


def shown(url: str) -> str:
    """``url`` for messages: without a password, and without a query, which may be a signature."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx.InvalidURL:
        return repr(url)


def checked_url(url: str) -> httpx.URL:
    """``url``, or ``DownloadError`` unless it is one of http or https."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise DownloadError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise DownloadError(f"{shown(url)}: only http:// and https:// are fetched")
    return parsed


class _Token(httpx.Auth):
    """Shows a token to one origin only, wherever that redirects to."""

    def __init__(self, token: str, endpoint: httpx.URL) -> None:
        self._header = f"Bearer {token}"
        self._origin = _origin(endpoint)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.pop("Authorization", None)
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = self._header
        yield request


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _token_for(endpoint: str, token: str) -> _Token:
    url = checked_url(endpoint)
    if url.scheme != "https" and url.host not in _THIS_MACHINE:
        raise DownloadError(f"{shown(endpoint)}: a token is sent over https only")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise DownloadError("the token holds characters that no token has")
    return _Token(token, url)


def open_client(token: str | None = None, endpoint: str = "") -> httpx.Client:
    """A client with timeouts that honours the proxies of the environment; ``token`` is for ``endpoint`` alone."""
    # Without compression, so that lengths and positions are the file's.
    headers = {"User-Agent": "resnet-serving", "Accept-Encoding": "identity"}
    auth = _token_for(endpoint, token) if token else None
    try:
        return httpx.Client(auth=auth, headers=headers, timeout=_TIMEOUT)
    except (ValueError, ImportError) as error:
        raise DownloadError(f"the proxy that the environment names cannot be used: {error}") from error


@contextmanager
def get(client: httpx.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    """The response to a GET, behind all redirects, its body not yet read.

    httpx leaves ``headers`` with the request when it is redirected, but for credentials.
    """
    request = client.build_request("GET", checked_url(url), headers=headers)
    for _ in range(_MAX_REDIRECTS + 1):
        response = client.send(request, stream=True, follow_redirects=False)
        following = response.next_request
        if following is None:
            try:
                yield response
            finally:
                response.close()
            return
        response.close()
        target = checked_url(str(following.url))
        if request.url.scheme == "https" and target.scheme != "https":
            raise DownloadError(f"{shown(url)}: redirected from https to {shown(str(target))}; not followed")
        request = following
    raise DownloadError(f"{shown(url)}: more than {_MAX_REDIRECTS} redirects")


def number(header: str | None) -> int | None:
    """The whole number in ``header``; None where it holds none, or one that no file and no pause has."""
    return int(header) if header and _NUMBER.fullmatch(header) else None


def check_status(response: httpx.Response, url: str) -> None:
    """``Again`` for an error that may pass, ``Refused`` for one that stays."""
    if response.is_success:
        return
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code in _TRANSIENT:
        # The header's other form, a date, is for pauses longer than anybody waits here.
        raise Again(f"the server answers {status}", number(response.headers.get("Retry-After")))
    raise Refused(f"{shown(url)}: the server answers {status}", response.status_code)


def body(response: httpx.Response, limit: int, url: str) -> Iterator[bytes]:
    """The pieces of the body as they come; ``DownloadError`` where it is longer than ``limit`` bytes or compressed."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise DownloadError(f"{shown(url)}: compressed with {encoding!r}, which was not asked for")
    received = 0
    for chunk in response.iter_raw():
        received += len(chunk)
        if received > limit:
            raise DownloadError(f"{shown(url)}: the answer goes on after the {limit} bytes that it may have")
        yield chunk


def persist(
    attempt: Callable[[], T],
    url: str,
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
    size: Callable[[], int] = lambda: 0,
) -> T:
    """What ``attempt`` gives, tried again ever later.

    ``Unreachable`` when it failed ``ATTEMPTS`` times in a row without ``size`` growing.
    ``sleep`` waits, in seconds; ``size`` is what the attempts brought so far, in bytes.
    """
    failures, reached = 0, size()
    while True:
        try:
            return attempt()
        except (Again, httpx.TransportError) as error:
            failures = 1 if size() > reached else failures + 1
            reached = max(reached, size())
            reason = str(error) or type(error).__name__
            if failures >= ATTEMPTS:
                raise Unreachable(f"{shown(url)}: {reason}; gave up after {ATTEMPTS} attempts") from error
            asked = error.after_s if isinstance(error, Again) else None
            pause_s = min(asked or 2 ** (failures - 1), _MAX_PAUSE_S)
            console.print(f"{reason}; trying again in {pause_s} s", markup=False)
            sleep(pause_s)
