"""The files of the web pages: a fixed table, read once, so no path of a client ever reaches the file system."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from service.errors import UnknownRoute
from service.http.answers import Answer
from service.http.operation import Operation
from service.http.routing import Call, Route

CONTENT_TYPES: Final = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "ico": "image/x-icon",
}

ASSETS: Final = (
    "api.js",
    "base.css",
    "card.js",
    "chart.js",
    "classify.css",
    "compare.js",
    "docs.css",
    "docs.js",
    "dom.js",
    "failure.js",
    "heatmap.js",
    "history.js",
    "icon.svg",
    "intake.js",
    "key.js",
    "main.js",
    "models.js",
    "prometheus.js",
    "ship.jpg",
    "spent.js",
    "status.css",
    "status.js",
    "theme-toggle.js",
    "theme.js",
)
"""What ``/web/NAME`` answers, by name: files of service/web that pages load. Pages have routes of their own."""

# Nothing but what this service serves is loaded, run or spoken to; blob: and data: are for images the user chose.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_POLICIES: Final = (
    # Kept, but asked about each time: a new version of the service never meets an old script.
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", _POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class StaticFile:
    """One file of service/web (or ``content`` under that name) as an answer: ETag, caching, security headers."""

    def __init__(self, name: str, content: bytes | None = None) -> None:
        self._content = files("service").joinpath("web", name).read_bytes() if content is None else content
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'
        kind = CONTENT_TYPES[name.rpartition(".")[2]].encode()
        self._headers = ((b"content-type", kind), (b"etag", self._etag.encode()))

    def answer(self, call: Call, *headers: tuple[bytes, bytes]) -> Answer:
        """The file with ``headers`` more, or 304 where the client has it."""
        held = self._is_held(call.headers.get("if-none-match", ""))
        content = b"" if held else self._content
        return Answer(304 if held else 200, content, (*self._headers, *headers), policy=_POLICIES)

    def _is_held(self, if_none_match: str) -> bool:
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return self._etag in tags or "*" in tags


class _Assets:
    def __init__(self) -> None:
        self._files = {name: StaticFile(name) for name in ASSETS}

    async def show(self, call: Call) -> Answer:
        found = self._files.get(call.path["name"])
        if found is None:
            raise UnknownRoute("there is no such file")
        return found.answer(call)


def routes() -> list[Route]:
    """The routes of this module."""
    show = Operation("A file of the web pages", "service", documented=False, access="open")
    return [Route("GET", "/web/{name}", _Assets().show, show)]
