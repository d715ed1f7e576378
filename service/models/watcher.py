"""Looks at the store and at what administrators ask, again and again; all workers do, and so come to the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

from service.models.control import Control, Mark
from service.models.lifecycle import Lifecycle
from service.models.mirror import Mirror

logger = logging.getLogger(__name__)

CONTROL_S: Final = 0.5
"""Seconds between two looks at what administrators ask of all workers: a folder is listed."""


class Watcher:
    """Passes over the store every ``store_s`` seconds, 0 for none, and over a model whenever it was asked for.

    ``control`` is None where nobody can ask, ``mirror`` where the store is a folder.
    """

    def __init__(
        self, lifecycle: Lifecycle, control: Control | None, store_s: float, mirror: Mirror | None = None
    ) -> None:
        self._lifecycle = lifecycle
        self._control = control
        self._store_s = store_s
        self._mirror = mirror

    async def run(self) -> None:
        """Until it is cancelled."""
        if self._mirror is None or not self._store_s:
            await self._watch()
            return
        self._mirror.start()
        try:
            await self._watch()
        finally:
            self._mirror.stop()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        steps = [step for step in (self._store_s, CONTROL_S if self._control else 0) if step]
        if not steps:
            return
        marks = self._lifecycle.marks_at_start
        looked = loop.time()
        while True:
            await asyncio.sleep(min(steps))
            before, marks = marks, await self._marks(marks)
            asked = {name for name, mark in marks.items() if before.get(name) != mark}
            if asked and not await self._refreshed(asked):
                marks = before  # what was asked is still to be done
            if self._store_s and loop.time() - looked >= self._store_s:
                looked = loop.time()
                await self._refreshed(None)

    async def _refreshed(self, asked: Collection[str] | None) -> bool:
        try:
            return await self._lifecycle.refresh(asked)
        except Exception:
            logger.exception("the models cannot be brought in line with the store")
            return False

    async def _marks(self, before: Mapping[str, Mark]) -> Mapping[str, Mark]:
        """What was asked; as ``before`` where that cannot be read for a moment."""
        if self._control is None:
            return before
        try:
            return await asyncio.to_thread(self._control.read)
        except OSError as error:
            logger.warning("what was asked of all workers cannot be read: %s", error)
            return before
