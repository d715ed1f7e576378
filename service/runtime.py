"""All that one worker process holds: pools, gate, models; started, ready, stopped."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, ParamSpec, Protocol, TypeVar

from model_store.store import StoreError
from service.access.control import Access
from service.batching.gate import Gate
from service.batching.slots import Slots
from service.config import ConfigError, Settings
from service.errors import NotReady, ShuttingDown
from service.inference.pipeline import Pipeline
from service.inference.precision import check_precision
from service.logs.request_log import RequestLog
from service.metrics import Metrics
from service.models.control import Control
from service.models.lifecycle import Lifecycle
from service.models.loader import Loader
from service.models.mirror import Mirror
from service.models.registry import Registry
from service.models.selection import chosen_models as chosen_models
from service.models.shadow import Shadows
from service.models.watcher import Watcher
from service.process.cpus import available_cpus
from service.process.workers import Workers
from service.providers import ProviderUnavailable, candidates
from service.tracing import Tracing, check_tracing, start_tracing
from service.tuning.profile import Profile

logger = logging.getLogger(__name__)

SAMPLE_S: Final = 1.0

_PATIENCE: Final = 0.5
"""Share of the deadline that an image may have to wait for its answer when it is let in; the rest is for surprises."""

RETRY_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses between tries to load the models; the last one from then on."""

_STOPPING: Final = "the service is shutting down"

P = ParamSpec("P")
T = TypeVar("T")

StartError = (ConfigError, StoreError, ProviderUnavailable)
"""What keeps the service from starting, through no fault of the code; each is one line for the operator."""


def check_start(settings: Settings) -> None:
    """Before any worker starts: what is asked for can be had. Raises one of ``StartError``."""
    check_tracing(settings.traces)
    if (mirror := Mirror.of(settings.store)) is not None:
        mirror.begin()
    providers, _ = candidates(settings.inference.provider)
    for stored in chosen_models(settings):
        check_precision(stored, settings.inference.precision, providers=providers)


class Asked(Protocol):
    """A request, of whichever protocol; the names are for metrics, logs and traces."""

    model: str
    version: str


class Runtime:
    """One worker's state, from start to stop. Everything here belongs to its event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, workers: Workers) -> None:
        self.settings = settings
        self.metrics = metrics
        self.tracing = Tracing()
        self.load_failed = asyncio.Event()
        self.requests = RequestLog(settings.logs)
        self.began_s = time.monotonic()
        self.workers = workers.count
        self.access = Access(settings.access, workers.count)
        limits = settings.limits
        self.gate = Gate(limits.max_queue, limits.max_held_bytes, patience_s=_PATIENCE * limits.deadline_s)
        self.control = Control(workers.run_dir)
        self._workers = workers
        self._cpus = max(1, available_cpus() // workers.count)
        self.mirror = Mirror.of(settings.store, workers.run_dir, metrics)
        self._loader = Loader(settings, metrics, self._cpus)
        canary = settings.canary
        self.shadows = Shadows(canary.canary_in_flight, settings.limits.deadline_s, metrics, self._busy)
        self.registry = Registry(canary, self.shadows)
        self.lifecycle = Lifecycle(settings, self.registry, self._loader, self.control, metrics)
        self._state = "the models are loading"
        self._leaving = False
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._threads = ExitStack()

    def start(self, before_ready: Callable[[], None] = lambda: None) -> asyncio.Task[None]:
        """Load and warm the models in the background; ``before_ready`` may stop the event loop, as nobody waits yet."""
        self._looking = asyncio.create_task(self.access.watch())
        self.tracing = start_tracing(self.settings.traces)
        self._loading = asyncio.create_task(self._load(before_ready))
        return self._loading

    def drain(self) -> bool:
        """Not ready any more, as the service is about to stop; until it does, requests are answered as ever.

        Says whether it was ready.
        """
        was_ready, self._leaving = self.unready is None, True
        self.metrics.ready(False)
        return was_ready

    async def stop(self) -> None:
        """Settle what was accepted, then end the threads."""
        self._stopping = True
        self._state = _STOPPING
        self.metrics.ready(False)
        for task in (self._looking, self._loading, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self.shadows.close()
        await self.lifecycle.close()
        if self._sampling is not None:
            self._sampling.cancel()
        self.metrics.flush()
        await self.tracing.close()
        self.requests.close()
        await asyncio.to_thread(self._threads.close)

    async def _sample(self, slots: Slots) -> None:
        """Keep the metrics that are looked at, not counted, a second old at most."""
        while True:
            busy = slots.count - slots.free
            self.metrics.sample(slots=slots.count, slots_busy=busy, images_held=self.gate.images)
            await self._sample_drift()
            await self._sample_gpus()
            await asyncio.sleep(SAMPLE_S)

    async def _sample_drift(self) -> None:
        """Compare what came with the models' references; in a thread, as it takes milliseconds."""
        for served in self.registry.served:
            drift = served.pipeline.drift
            if drift is None:
                continue
            try:
                self.metrics.drift.show(served.name, served.version, await asyncio.to_thread(drift.measure))
            except Exception:
                logger.exception("model %s version %s: its drift could not be measured", served.name, served.version)

    async def _sample_gpus(self) -> None:
        """Look at the GPUs where a model runs on one; in a thread, as the driver may take its time."""
        if all(served.pipeline.session.on_cpu for served in self.registry.served):
            return
        try:
            await asyncio.to_thread(self.metrics.gpus.sample)
        except Exception:
            logger.exception("the GPUs could not be looked at")

    async def _load(self, before_ready: Callable[[], None]) -> None:
        began = time.perf_counter()
        slots = await self._first_models()
        before_ready()
        self._sampling = asyncio.create_task(self._sample(slots))
        self._state = ""
        self._workers.mark_ready()
        self.metrics.ready(not self._leaving)
        asked = self.control if self.access.has_admin else None
        watch_s = self.settings.store.watch_s
        self._watching = asyncio.create_task(Watcher(self.lifecycle, asked, watch_s, self.mirror).run())
        logger.info("ready after %.1f s: %d slots on %d cores", time.perf_counter() - began, slots.count, self._cpus)

    async def _first_models(self) -> Slots:
        """Load what is to be served. A worker that replaces another tries again and again, with pauses.

        Were it to fail as at a start, its parent would begin another at once, and again, with all that a start costs.
        """
        if not self._workers.replacing:
            return await self.lifecycle.start(self._threads, strict=True)
        for pause_s in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
            try:
                return await self.lifecycle.start(self._threads, strict=False)
            except Exception as error:  # noqa: BLE001 - whatever keeps it from serving may be gone later
                reason = self.lifecycle.without_paths(str(error)) or type(error).__name__
                self._state = f"the models cannot be loaded: {reason}"
                self.load_failed.set()
                logger.error("this worker replaces another, and %s; again in %g s", self._state, pause_s)
            await asyncio.sleep(pause_s)
        raise AssertionError("the pauses do not end")

    def _busy(self) -> bool:
        """Whether no slot is idle."""
        return self._loader.pools is None or not self._loader.pools.slots.free

    async def in_decode_pool(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``call`` in a decode thread, for work that would hold up the event loop."""
        if self._stopping or self._loader.pools is None:
            raise ShuttingDown(self._state)
        work = functools.partial(call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._loader.pools.decode, work)

    @property
    def unready(self) -> str | None:
        """Why requests cannot be answered now, or None."""
        if self._state:
            return self._state
        if self._leaving:
            return _STOPPING
        return None if self._workers.started else "other workers are loading"

    @property
    def slots(self) -> Slots | None:
        """Those that all models share; None before the first is loaded."""
        return None if self._loader.pools is None else self._loader.pools.slots

    @property
    def busy(self) -> bool:
        """Whether it is ready but has no room: whatever a request for an inference holds, it would be refused."""
        return self.gate.full and not self._state

    def check_ready(self) -> None:
        """``NotReady`` while the models load, ``ShuttingDown`` at the end."""
        if self._state:
            raise ShuttingDown(self._state) if self._stopping else NotReady(self._state)

    @property
    def models(self) -> list[Pipeline]:
        """The models served, the one that answers by default first; raises as ``check_ready`` does."""
        self.check_ready()
        return [served.pipeline for served in self.registry.served]

    @property
    def profiles(self) -> list[Profile | None]:
        """Of the models, in their order."""
        return [served.profile for served in self.registry.served]

    def use(self, name: str | None, version: str | None) -> AbstractContextManager[Pipeline]:
        """The model a request asks for, kept while the block lasts.

        ``version`` is a number or an alias. Without one the model's canary may answer, where the settings say so.
        """
        self.check_ready()
        return self.registry.use(name, version)

    @contextmanager
    def use_for(self, call: Asked, name: str | None, version: str | None) -> Iterator[Pipeline]:
        """``use``, and ``call`` is told which model answers it."""
        with self.use(name, version) as pipeline:
            manifest = pipeline.stored.manifest
            call.model, call.version = manifest.name, manifest.version
            yield pipeline

    def find(self, name: str | None, version: str | None) -> Pipeline:
        """The model that is asked for: the default one, or by name, or by name and version; never its canary unasked.

        It may be gone after the next ``await``; ``use`` keeps it.
        """
        self.check_ready()
        return self.registry.find(name, version).pipeline
