"""A call on its way: what is used of gRPC's, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import grpc

from service.access.holder import Holder
from service.logs.stages import Stages

Metadata = Sequence[tuple[str, str | bytes]]


class Context(Protocol):
    """What is used of ``grpc.aio.ServicerContext``, which has no types."""

    async def read(self) -> object: ...

    async def write(self, message: bytes) -> None: ...

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...

    def time_remaining(self) -> float | None: ...

    def invocation_metadata(self) -> Metadata | None: ...


@dataclass(slots=True)
class Call:
    """One request on its way: the model for the metrics, ``deadline`` on the event loop's clock.

    request_id -- the client's, who may send anything.
    """

    method: str
    metadata: Metadata
    deadline: float
    model: str = ""
    version: str = ""
    request_id: str = ""
    stages: Stages = field(default_factory=Stages)
    holder: Holder | None = None

    @property
    def route(self) -> str:
        """As metrics and logs call it."""
        return f"grpc/{self.method}"
