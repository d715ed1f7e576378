"""The service with a leak: the control that the memory's test must find."""

from __future__ import annotations

from typing import Any, Final

from service.app import ResNetService
from service.http.api import Api

__all__ = ["ResNetService"]

LEAK_BYTES: Final = 32 * 2**10
"""Never given back, for each request to a known route."""

_kept: list[bytearray] = []
_call = Api.__call__


async def _leaking(self: Api, *arguments: Any) -> None:
    _kept.append(bytearray(b"\1" * LEAK_BYTES))  # written, so that it is resident
    await _call(self, *arguments)


Api.__call__ = _leaking  # type: ignore[method-assign]
