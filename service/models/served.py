"""A model version that is served, and who uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from model_store.names import STABLE
from service.inference.pipeline import Pipeline
from service.models.view import Signature
from service.tuning.profile import Profile


class Served:
    """One version, open and warm. Event loop only."""

    def __init__(self, pipeline: Pipeline, profile: Profile | None, signature: Signature) -> None:
        self.pipeline = pipeline
        self.profile = profile
        self.signature = signature
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def name(self) -> str:
        return self.pipeline.stored.manifest.name

    @property
    def version(self) -> str:
        return self.pipeline.stored.manifest.version

    @property
    def leases(self) -> int:
        """Requests that use it."""
        return self._leases

    @contextmanager
    def lease(self) -> Iterator[None]:
        """It is not closed while the block lasts."""
        self._leases += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    async def drain(self) -> None:
        """Close it when nobody uses it any more, and drop its sessions; it must be out of the registry already."""
        await self._unused.wait()
        await self.pipeline.close()
        held = [self.pipeline.release()]  # no garbage collection is waited for; in a thread as it takes a while
        await asyncio.to_thread(lambda: held.pop().close())


@dataclass(frozen=True)
class ServedModel:
    """One name's versions, the one that answers first; never changed, but replaced as a whole.

    aliases -- versions by alias; all are among ``versions``, and ``stable`` is among them.
    """

    name: str
    versions: Mapping[str, Served]
    aliases: Mapping[str, str]

    @property
    def stable(self) -> Served:
        return self.versions[self.aliases[STABLE]]

    def find(self, version: str | None) -> Served | None:
        """By number or alias; None for the stable one."""
        return self.stable if version is None else self.versions.get(self.aliases.get(version, version))

    def called(self, version: str) -> list[str]:
        """The aliases of ``version``."""
        return [alias for alias, named in self.aliases.items() if named == version]
