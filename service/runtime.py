"""All that one worker process holds: pools, gate, models; started, ready, stopped."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final, ParamSpec, TypeVar

from model_store.store import ModelStore, StoredModel, StoreError
from service.config import ConfigError, Settings
from service.cpus import available_cpus
from service.decode import Decoder
from service.errors import NotReady, ShuttingDown, UnknownModel
from service.forming import Forming
from service.gate import Gate
from service.memory import trim
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.precision import check_precision
from service.providers import ProviderUnavailable, Share, candidates
from service.session import Session
from service.settings import InferenceSettings
from service.slots import Slots
from service.tuning.applied import Tuned, tuned
from service.tuning.profile import Profile, one_line
from service.workers import Workers

logger = logging.getLogger(__name__)

SAMPLE_S: Final = 1.0

P = ParamSpec("P")
T = TypeVar("T")

StartError = (ConfigError, StoreError, ProviderUnavailable)
"""What keeps the service from starting, through no fault of the code; each is one line for the operator."""


def chosen_models(settings: Settings) -> list[StoredModel]:
    """The models to serve, the default one first; ``StoreError`` where one is missing or damaged."""
    store = ModelStore(settings.store.model_store)
    references = settings.store.models or tuple((name, None) for name in store.names())
    if not references:
        raise StoreError(f"{store.root}: the store has no model; export one, or set RESNET_MODEL_STORE")
    resolved = [store.resolve(name, version) for name, version in references]
    # "name" and "name@2" may be the same version: it is loaded once.
    chosen = list({stored.folder: stored for stored in resolved}.values())
    for stored in chosen:
        stored.verify()
        stored.labels()
    return chosen


def check_start(settings: Settings) -> None:
    """Before any worker starts: what is asked for can be had. Raises one of ``StartError``."""
    providers, _ = candidates(settings.inference.provider)
    for stored in chosen_models(settings):
        check_precision(stored, settings.inference.precision, providers=providers)


def _forming(settings: Settings) -> Forming:
    inference = settings.inference
    return Forming(inference.max_batch, inference.max_delay_s, inference.preferred_batches)


def _share(cpus: int, settings: Settings) -> Share:
    slots = settings.inference.slots
    return Share(cpus, None if slots == "auto" else slots)


class Runtime:
    """One worker's state, from start to stop. Everything here belongs to its event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, workers: Workers) -> None:
        self.settings = settings
        self.metrics = metrics
        self.gate = Gate(settings.limits.max_queue)
        self._workers = workers
        self.profiles: list[Profile | None] = []  # of the models, in their order
        self._models: list[Pipeline] = []
        self._state = "the models are loading"
        self._stopping = False
        self._loading: asyncio.Task[None] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._threads = ExitStack()
        self._decode_pool: ThreadPoolExecutor | None = None

    def start(self) -> asyncio.Task[None]:
        """Load and warm the models in the background."""
        self._loading = asyncio.create_task(self._load())
        return self._loading

    async def stop(self) -> None:
        """Settle what was accepted, then end the threads."""
        self._stopping = True
        self._state = "the service is shutting down"
        self.metrics.ready(False)
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await asyncio.gather(*(pipeline.close() for pipeline in self._models))
        if self._sampling is not None:
            self._sampling.cancel()
        self.metrics.flush()
        await asyncio.to_thread(self._threads.close)

    async def _sample(self, slots: Slots) -> None:
        """Keep the metrics that are looked at, not counted, a second old at most."""
        while True:
            busy = slots.count - slots.free
            self.metrics.sample(slots=slots.count, slots_busy=busy, images_held=self.gate.images)
            await asyncio.sleep(SAMPLE_S)

    async def _load(self) -> None:
        began = time.perf_counter()
        settings = self.settings
        cpus = max(1, available_cpus() // self._workers.count)
        chosen = await asyncio.to_thread(chosen_models, settings)
        plans = [await asyncio.to_thread(tuned, settings, stored, cpus) for stored in chosen]
        # Slots and decode threads are the process's: what the default model was opened by says how many.
        process: Settings | None = None
        opened: list[tuple[Session, Tuned]] = []
        for stored, plan in zip(chosen, plans, strict=True):
            opened.append(await asyncio.to_thread(self._open_tuned, stored, plan, process, cpus))
            process = opened[0][1].settings
        trim()
        slots = Slots(max(session.slots for session, _ in opened))
        self._threads.callback(slots.close)
        on_cpu = all(session.on_cpu for session, _ in opened)
        threads = opened[0][1].settings.decode.threads(cpus, on_cpu)
        decode_pool = ThreadPoolExecutor(threads or cpus, thread_name_prefix="decode")
        self._threads.callback(decode_pool.shutdown)
        self._decode_pool = decode_pool
        decoder = Decoder(settings.decode)
        self._models = [
            Pipeline(
                stored, session, decoder, decode_pool if threads else None, slots, _forming(plan.settings), self.metrics
            )
            for stored, (session, plan) in zip(chosen, opened, strict=True)
        ]
        self.profiles = [plan.profile for _, plan in opened]
        self._sampling = asyncio.create_task(self._sample(slots))
        self._state = ""
        self._workers.mark_ready()
        self.metrics.ready(True)
        logger.info("ready after %.1f s: %d slots on %d cores", time.perf_counter() - began, slots.count, cpus)

    def _open_tuned(
        self, stored: StoredModel, plan: Tuned, process: Settings | None, cpus: int
    ) -> tuple[Session, Tuned]:
        """A session as ``plan`` says, and what it was opened by: a profile that fails is no reason not to start.

        ``process`` says how many slots there are; None for the first model, whose own settings do.
        """
        if plan.profile is not None:
            try:
                return self._open(stored, _share(cpus, process or plan.settings), plan.settings.inference), plan
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises classes of its own, without a common base
                manifest, reason = stored.manifest, one_line(str(error))
                logger.warning("model %s version %s: profile ignored: %s", manifest.name, manifest.version, reason)
        # Not within ``except``, where the error would keep the failed session's memory.
        return self._open(stored, _share(cpus, process or self.settings), self.settings.inference), Tuned(self.settings)

    def _open(self, stored: StoredModel, share: Share, inference: InferenceSettings) -> Session:
        requested = self.settings.inference.provider
        began = time.perf_counter()
        session = Session(
            stored,
            inference.provider,
            replace(share, max_batch=inference.max_batch),
            inference.precision,
            self.settings.providers,
            inference.spread_lone_image,
        )
        session.warm_up(inference.max_batch)
        manifest, precision = stored.manifest, session.variant.precision
        self.metrics.model_loaded(
            manifest.name,
            manifest.version,
            provider=session.provider,
            precision=precision,
            requested=requested,
            passed_over=[reason.partition(":")[0] for reason in session.passed_over],
            sha256=session.variant.sha256,
            seconds=time.perf_counter() - began,
        )
        passed_over = f" ({'; '.join(session.passed_over)})" if session.passed_over else ""
        logger.info(
            "model %s version %s: %s, %s%s",
            manifest.name, manifest.version, session.provider, precision, passed_over,
        )  # fmt: skip
        if not session.variant.gated:
            logger.warning(
                "model %s version %s: its %s variant is ungated, so nobody knows how good its answers are",
                manifest.name, manifest.version, precision,
            )  # fmt: skip
        return session

    async def in_decode_pool(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``call`` in a decode thread, for work that would hold up the event loop."""
        if self._stopping or self._decode_pool is None:
            raise ShuttingDown(self._state)
        work = functools.partial(call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._decode_pool, work)

    @property
    def unready(self) -> str | None:
        """Why requests cannot be answered now, or None."""
        if self._state:
            return self._state
        return None if self._workers.started else "other workers are loading"

    @property
    def models(self) -> list[Pipeline]:
        """The models served, the default one first; ``NotReady`` while they load, ``ShuttingDown`` at the end."""
        if self._state:
            raise ShuttingDown(self._state) if self._stopping else NotReady(self._state)
        return self._models

    @contextmanager
    def use(self, name: str | None, version: str | None) -> Iterator[Pipeline]:
        """``find``, for as long as the block lasts: the model is not taken away meanwhile."""
        yield self.find(name, version)

    def find(self, name: str | None, version: str | None) -> Pipeline:
        """The model a request asks for: the default one, or by name, or by name and version."""
        models = self.models
        if name is None and version is None:
            return models[0]
        wanted = models[0].stored.manifest.name if name is None else name
        found = [m for m in models if m.stored.manifest.name == wanted]
        if version is not None:
            found = [m for m in found if m.stored.manifest.version == version]
        if found:
            return max(found, key=lambda m: int(m.stored.manifest.version))
        asked = f"model {wanted[:64]!r}" if version is None else f"model {wanted[:64]!r} version {version[:16]!r}"
        served = ", ".join(f"{m.stored.manifest.name} version {m.stored.manifest.version}" for m in models)
        raise UnknownModel(f"no {asked} is served; served: {served}")
