"""What BentoML answers. What it does not take of the probes, another method than GET, comes to us in the end."""

from __future__ import annotations

from typing import Final

from service.errors import UnknownRoute
from service.http.answers import Answer
from service.http.operation import Operation
from service.http.routing import Call, Route, Router

PATHS: Final = ("/livez", "/readyz", "/healthz")

BENTOML_PATHS: Final = frozenset({*PATHS, "/schema.json"})
"""All that it is asked: the probes, and the description of its method that its clients read."""


async def _answered_by_bentoml(call: Call) -> Answer:
    raise UnknownRoute("BentoML answers this path, and is not here")


BENTOML: Final = Router(
    Route("GET", path, _answered_by_bentoml, Operation("A probe", "service", documented=False, access="open"))
    for path in PATHS
)
"""Finds what is none of our routes, and yet no unknown path."""
