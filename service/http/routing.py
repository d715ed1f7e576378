"""Which handler answers a path, and what it is given."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers
from starlette.types import Receive

from service.access.holder import Holder
from service.errors import BadRequest
from service.http.answers import Answer
from service.http.operation import Operation
from service.logs.stages import Stages

_MAX_PARAMETERS: Final = 64
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


class Query(BaseModel):
    """The parameters that a route takes in its query; unknown or repeated ones are mistakes worth telling."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Q = TypeVar("Q", bound=Query)


@dataclass(slots=True)
class Call:
    """One request on its way: what handlers need and what the metrics are told.

    deadline -- on the event loop's clock.
    path     -- the values of the route's parameters, ``{name}`` in its path.
    model, version -- set by the handler: of the model that answers, empty where none is reached.
    stages   -- of its images; the body's part is set by what reads it.
    holder   -- whose key it came with; None where no keys are asked for.
    timer    -- ends the call at its deadline, and sooner where its client pauses for too long.
    reading  -- whether the client is waited for.
    """

    method: str
    headers: Headers
    query_string: bytes
    receive: Receive
    deadline: float
    request_id: str
    path: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    version: str = ""
    stages: Stages = field(default_factory=Stages)
    holder: Holder | None = None
    timer: asyncio.Timeout | None = None
    reading: bool = False

    @property
    def accept(self) -> str | None:
        """The media types that are wanted, of all lines that name some: they are one list (RFC 9110, 5.3)."""
        return ", ".join(self.headers.getlist("accept")) or None

    def begin_reading(self, idle_s: float) -> None:
        """Wait for the client, for ``idle_s`` at most."""
        self.reading = True
        latest = min(self.deadline, asyncio.get_running_loop().time() + idle_s)
        if self.timer is not None and self.timer.when() != latest:
            self.timer.reschedule(latest)

    def end_reading(self) -> None:
        """What is waited for from now on is ours."""
        self.reading = False
        if self.timer is not None and self.timer.when() != self.deadline:
            self.timer.reschedule(self.deadline)

    def query(self, kind: type[Q]) -> Q:
        """The query's parameters; ``BadRequest`` names the first that is wrong, unknown or given twice."""
        if not self.query_string:
            return cast("Q", _without_parameters(kind))
        try:
            text = self.query_string.decode("latin-1")
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        except ValueError as error:
            raise BadRequest(f"more than {_MAX_PARAMETERS} query parameters") from error
        values = dict(pairs)
        unknown = sorted(set(values) - set(_names(kind)))
        if unknown:
            raise BadRequest(f"unknown query parameter {unknown[0][:64]!r}; known: {', '.join(_names(kind)) or 'none'}")
        if len(pairs) > len(values):
            raise BadRequest("a query parameter is given twice")
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise BadRequest(_explain(error)) from error


@functools.cache
def _without_parameters(kind: type[Query]) -> Query:
    """Every parameter has a default; made once, as queries are frozen."""
    return kind()


@functools.cache
def _names(kind: type[Query]) -> list[str]:
    return sorted(field.alias or name for name, field in kind.model_fields.items())


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{'.'.join(map(str, first['loc'])) or 'query'}: {message[0].lower()}{message[1:]}"


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` may hold parameters, ``/v1/models/{name}``: each is one segment.

    deadline_s -- from the first byte to the answer, where the settings' own would be too short.
    gated      -- whether it takes images through the gate, which then may refuse it unseen.
    """

    method: str
    path: str
    handler: Handler
    operation: Operation
    deadline_s: float | None = None
    gated: bool = False

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in its path."""
        return _PARAMETER.findall(self.path)


@dataclass(frozen=True, slots=True)
class Match:
    """``path`` is the route's, a bounded name for metrics and logs; ``values`` those of its parameters."""

    path: str
    methods: Mapping[str, Route]
    values: Mapping[str, str]

    def route(self, method: str) -> Route | None:
        """What answers ``method``; where there is GET there is HEAD."""
        return self.methods.get("GET" if method == "HEAD" else method)

    @property
    def allowed(self) -> str:
        """What a client may do."""
        return ", ".join("GET, HEAD" if method == "GET" else method for method in self.methods)


class Router:
    """Finds routes: those without parameters in one step, the others in the order they were given."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            if route.method in by_path.setdefault(route.path, {}):
                raise ValueError(f"two routes for {route.method} {route.path}")
            by_path[route.path][route.method] = route
        self._plain = {path: Match(path, methods, {}) for path, methods in by_path.items() if "{" not in path}
        self._patterns = [(_pattern(path), path, methods) for path, methods in by_path.items() if "{" in path]

    def match(self, path: str) -> Match | None:
        """The routes of ``path``, already percent-decoded; None where there is none."""
        if (found := self._plain.get(path)) is not None:
            return found
        for pattern, name, methods in self._patterns:
            if (values := pattern.fullmatch(path)) is not None:
                return Match(name, methods, values.groupdict())
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts = enumerate(_PARAMETER.split(path))  # every other one is a parameter's name
    return re.compile("".join(f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part) for i, part in parts))
