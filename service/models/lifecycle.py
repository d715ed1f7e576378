"""Brings what is served in line with the store: new versions beside the old ones, then in their place.

A version that cannot be loaded changes nothing: what it should have replaced stays. It is tried again when its files
change or somebody asks for it, and after some minutes where it may not be its files that are wrong. One pass at a
time; loading is in threads, each change on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel
from service.batching.slots import Slots
from service.config import Settings
from service.metrics import Metrics
from service.models import selection
from service.models.control import Control, Mark
from service.models.loader import Loader, Opened
from service.models.registry import Registry
from service.models.selection import NOTHING, Selection, named, select
from service.models.served import Served
from service.models.view import ModelView, Signature, look_at_all
from service.process.memory import trim
from service.tuning.profile import one_line

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 300.0


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded: why, from which files, and when it is tried again by ``time.monotonic``."""

    reason: str
    signature: Signature
    again_s: float


@dataclass
class Status:
    """What is known of a model besides what is served.

    view     -- the store's, when it was last read.
    loading  -- versions that are being opened now.
    failed   -- versions that could not be.
    unloaded -- whether an administrator took it out.
    trouble  -- why the store's state of it cannot be followed; what is served stays.
    """

    view: ModelView | None = None
    loading: set[str] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)
    unloaded: bool = False
    trouble: str = ""


class Lifecycle:
    """Loads, replaces and takes out the models of ``registry``. Event loop only."""

    def __init__(
        self, settings: Settings, registry: Registry, loader: Loader, control: Control, metrics: Metrics
    ) -> None:
        self.status: dict[str, Status] = {}
        self.marks_at_start: Mapping[str, Mark] = {}
        self._settings = settings
        self._store = ModelStore(settings.store.folder)
        self._registry = registry
        self._loader = loader
        self._control = control
        self._metrics = metrics
        self._pass = asyncio.Lock()
        self._trouble = ""
        self._checked: dict[tuple[str, str], StoredModel] = {}
        self._draining: dict[asyncio.Task[None], Served] = {}

    async def start(self, closing: ExitStack, *, strict: bool) -> Slots:
        """Load what is to be served; ``closing`` will end its threads. Gives the slots that all models share.

        ``strict``: whatever cannot be loaded is raised. Else only where nothing can: a worker that replaces another
        must not fall over a version that broke since the service started.
        """
        async with self._pass:
            if strict:
                chosen = await asyncio.to_thread(selection.chosen_models, self._settings)
                self._checked = {(s.manifest.name, s.manifest.version): s for s in chosen}
            # In this order, so that what is asked from here on is seen to be new.
            marks = self.marks_at_start = await asyncio.to_thread(self._control.read)
            views = await asyncio.to_thread(look_at_all, self._store, named(self._settings.store))
            prepared: dict[str, tuple[Selection, dict[str, Opened]]] = {}
            for name, view in views.items():
                status = self.status[name] = Status(unloaded=name in marks and marks[name].unloaded)
                if isinstance(view, StoreError):
                    if strict:
                        raise view
                    self._tell(name, status, str(view))
                    continue
                status.view = view
                prepared[name] = await self._prepare(name, status, view, strict=strict)
            self._checked.clear()
            opened = [one for _, found in prepared.values() for one in found.values()]
            if not opened and not any(status.unloaded for status in self.status.values()):
                raise StoreError(f"no model can be loaded: {'; '.join(self._reasons())}")
            pools = self._loader.make_pools(opened, closing)
            self._order()
            for name, (found, sessions) in prepared.items():
                self._put(name, found, sessions)
            return pools.slots

    async def refresh(self, asked: Collection[str] | None = None) -> bool:
        """One pass over the store; False where that cannot be read, which is told.

        ``asked`` names models that somebody asked for: these alone, and what failed before is tried again. ``OSError``
        where what administrators ask cannot be read.
        """
        async with self._pass:
            marks = await asyncio.to_thread(self._control.read)
            for name, status in self.status.items():
                status.unloaded = name in marks and marks[name].unloaded
                if status.unloaded:  # which needs no store
                    self._put(name, NOTHING, {})
            try:
                views = await asyncio.to_thread(look_at_all, self._store, named(self._settings.store))
            except (StoreError, OSError) as error:
                self._tell_of_store(str(error))
                return False
            self._tell_of_store("")
            followed = [name for name in {**self.status, **views} if asked is None or name in asked]
            for name in followed:
                self.status.setdefault(name, Status(unloaded=name in marks and marks[name].unloaded))
            self._order()
            for name in followed:
                if asked is not None:
                    self.status[name].failed.clear()
                await self._follow(name, self.status[name], views.get(name))
            self._order()
            return True

    def _order(self) -> None:
        """As ``RESNET_MODELS`` has it, else by name: the same in every worker, whenever it started."""
        self._registry.order(named(self._settings.store) or sorted(self.status))

    async def _follow(self, name: str, status: Status, view: ModelView | StoreError | None) -> None:
        """Bring one model in line with what the store has of it; None where that has it no more."""
        if isinstance(view, StoreError):
            self._tell(name, status, str(view))
            return
        if view is None:
            del self.status[name]
            self._put(name, NOTHING, {})
            return
        status.view = view
        now_s = time.monotonic()
        status.failed = {
            v: f for v, f in status.failed.items() if view.versions.get(v) == f.signature and now_s < f.again_s
        }
        try:
            found, opened = await self._prepare(name, status, view, strict=False)
        except StoreError as error:
            self._tell(name, status, str(error))
            return
        status.trouble = ""
        self._put(name, found, opened)

    async def _prepare(
        self, name: str, status: Status, view: ModelView, *, strict: bool
    ) -> tuple[Selection, dict[str, Opened]]:
        """What to serve of ``name``, and those versions of it that were opened for that."""
        if status.unloaded:
            return NOTHING, {}
        now = self._registry.get(name)
        served: Mapping[str, Served] = {} if now is None else now.versions
        opened: dict[str, Opened] = {}
        while True:
            unusable = status.failed.keys() - served.keys()
            found = select(name, self._settings.store, view, unusable, {} if now is None else now.aliases)
            missing = [
                version
                for version in found.versions
                if version in view.versions
                and version not in opened
                and version not in status.failed
                and (version not in served or served[version].signature != view.versions[version])
            ]
            if not missing:
                return found, {version: one for version, one in opened.items() if version in found.versions}
            for version in missing:
                try:
                    one = await self._open(name, version, view.versions[version], served.get(version), status)
                except Exception as error:
                    if strict:
                        raise
                    self._fail(name, version, view.versions[version], status, error)
                    break  # what is to be served may be another now
                if one is not None:
                    opened[version] = one

    async def _open(
        self, name: str, version: str, signature: Signature, now: Served | None, status: Status
    ) -> Opened | None:
        """Open a version; None where its files are others, but it is what is served under its number already."""
        status.loading.add(version)
        try:
            stored = self._checked.get((name, version))
            if stored is None:
                stored = await asyncio.to_thread(self._resolve, name, version)
            if now is not None and now.pipeline.stored.manifest == stored.manifest:
                now.signature = signature
                return None
            opened = await asyncio.to_thread(self._loader.open, stored, signature)
        finally:
            status.loading.discard(version)
        self._metrics.loads(name, "loaded")
        return opened

    def _resolve(self, name: str, version: str) -> StoredModel:
        stored = self._store.resolve(name, version)
        selection.check(stored)
        return stored

    def _fail(self, name: str, version: str, signature: Signature, status: Status, error: Exception) -> None:
        reason = self.without_paths(str(error)) or type(error).__name__
        # Its files stay what they are; memory, descriptors and devices come back.
        again_s = math.inf if isinstance(error, StoreError) else time.monotonic() + _AGAIN_S
        status.failed[version] = Failure(reason, signature, again_s)
        self._metrics.loads(name, "failed")
        logger.error("model %s version %s cannot be loaded: %s", name, version, reason)

    def _put(self, name: str, found: Selection, opened: Mapping[str, Opened]) -> None:
        """The change itself: from here on requests get what was found, and the rest is drained."""
        now = self._registry.get(name)
        before = {} if now is None else now.versions
        fresh = {version: self._loader.serve(one) for version, one in opened.items()}
        versions = {version: fresh.get(version) or before[version] for version in found.versions}
        retired = self._registry.put(name, versions, found.aliases)
        if now is not None and now.aliases != found.aliases:
            names = ", ".join(f"{alias} is version {version}" for alias, version in found.aliases.items())
            logger.info("model %s: %s", name, names or "taken out")
        for served in retired:
            if served.version not in versions:
                self._metrics.model_gone(name, served.version)
            task = asyncio.create_task(self._drain(served))
            self._draining[task] = served
            task.add_done_callback(self._draining.pop)

    async def _drain(self, served: Served) -> None:
        await served.drain()
        await asyncio.to_thread(trim)
        logger.info("model %s version %s: drained and closed", served.name, served.version)

    @property
    def draining(self) -> list[tuple[str, str]]:
        """Names and versions of what is out of service and still in use."""
        return [(served.name, served.version) for served in self._draining.values()]

    async def close(self) -> None:
        """Settle what every model has taken, those included that are being drained."""
        pipelines = [served.pipeline for served in (*self._registry.served, *self._draining.values())]
        for task in list(self._draining):
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)
        await asyncio.gather(*(pipeline.close() for pipeline in pipelines))

    def _tell(self, name: str, status: Status, trouble: str) -> None:
        """Once, until it is another."""
        trouble = self.without_paths(trouble)
        if trouble != status.trouble:
            status.trouble = trouble
            logger.error("model %s: %s; what is served stays", name, trouble)

    def _reasons(self) -> list[str]:
        """Why models are not served, or versions of them."""
        found = [f"{name}: {status.trouble}" for name, status in self.status.items() if status.trouble]
        return found + [
            f"{name} version {version}: {failure.reason}"
            for name, status in self.status.items()
            for version, failure in status.failed.items()
        ]

    def without_paths(self, text: str) -> str:
        """In one line; clients may see it, and need not see where the store is."""
        return one_line(text.replace(f"{self._store.root}{os.sep}", ""))

    def _tell_of_store(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.error("the model store cannot be read: %s; what is served stays", one_line(trouble))
        self._trouble = trouble
