"""Which pages of other origins may ask, where any may: Starlette's middleware, and not a line of it where none may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
_ASKED: Final = (
    "Authorization",
    "X-API-Key",
    "X-Request-ID",
    "Content-Type",
    "Inference-Header-Content-Length",
    "traceparent",
    "tracestate",
)
_SHOWN: Final = ("X-Request-ID", "Retry-After", "Location", "Inference-Header-Content-Length")
_KEPT_S: Final = 600


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """``app``, which pages of ``origins`` may ask; keys travel in headers, so no cookies are sent."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_ASKED, expose_headers=_SHOWN, max_age=_KEPT_S
    )
