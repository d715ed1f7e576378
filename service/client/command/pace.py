"""How many requests are under way: fewer where the service is full."""

from __future__ import annotations

import asyncio
from typing import Final

_ANSWERS_TO_GROW: Final = 64


class Pace:
    """At most ``most`` at once; each refusal for overload takes one place away, and ``_ANSWERS_TO_GROW`` answers in a
    row bring one back. A request that waits to be sent again keeps its place, so that others do not take its turn.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.places = most
        self._taken = 0
        self._answers = 0
        self._change = asyncio.Event()

    async def enter(self) -> None:
        """Waits for a place, and takes it until ``leave``. For one caller at a time."""
        while self._taken >= self.places:
            self._change.clear()
            await self._change.wait()
        self._taken += 1

    def leave(self) -> None:
        self._taken -= 1
        self._change.set()

    def refused(self) -> None:
        """The service has no room."""
        self.places = max(1, self.places - 1)
        self._answers = 0

    def answered(self) -> None:
        self._answers += 1
        if self._answers >= _ANSWERS_TO_GROW:
            self._answers = 0
            self.places = min(self.most, self.places + 1)
            self._change.set()
