"""Opens one model version: on its provider, tuned, warm; and what all of a process's models share."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from model_store.stored_model import StoredModel
from service.batching.forming import Forming
from service.batching.slots import Slots
from service.config import Settings
from service.images.apart import Apart
from service.images.decode import Decoder
from service.inference.drift import Drift
from service.inference.pipeline import Pipeline
from service.inference.session import Session
from service.metrics import Metrics
from service.models.served import Served
from service.models.view import Signature
from service.process.memory import trim
from service.providers import Share
from service.settings import InferenceSettings
from service.tuning.applied import Tuned, tuned
from service.tuning.profile import one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A version that is open and warm, what it was opened by, and how long that took."""

    stored: StoredModel
    signature: Signature
    session: Session
    tuned: Tuned
    drift: Drift | None
    seconds: float


@dataclass(frozen=True)
class Pools:
    """What all models of a process compute in.

    decode -- threads for work that would hold up the event loop.
    ahead  -- the same, where images are decoded ahead of the slots; else None.
    """

    slots: Slots
    decode: ThreadPoolExecutor
    ahead: ThreadPoolExecutor | None


class Loader:
    """Opens versions with this process's share of the machine: ``cpus`` cores."""

    def __init__(self, settings: Settings, metrics: Metrics, cpus: int) -> None:
        self.pools: Pools | None = None
        self._settings = settings
        self._metrics = metrics
        self._cpus = cpus
        self._decoder = Decoder(settings.decode, cheap_only=True)
        self._apart = Apart(settings.decode, cpus)
        # Slots and decode threads are the process's: what its first model was opened by says how many.
        self._process: Settings | None = None

    def open(self, stored: StoredModel, signature: Signature) -> Opened:
        """Open and warm ``stored``; takes seconds, so it runs in a thread. Raises whatever the provider does."""
        began_s = time.perf_counter()
        plan = tuned(self._settings, stored, self._cpus)
        if plan.profile is not None:
            try:
                share = _share(self._cpus, self._process or plan.settings)
                session = self._open(stored, share, plan.settings.inference)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime raises classes of its own, without a common base
                manifest, reason = stored.manifest, one_line(str(error))
                logger.warning("model %s version %s: profile ignored: %s", manifest.name, manifest.version, reason)
                # Tried again behind ``except``, where the error would keep the failed session's memory.
                plan = Tuned(self._settings)
            else:
                return self._opened(stored, signature, session, plan, began_s)
        share = _share(self._cpus, self._process or self._settings)
        session = self._open(stored, share, self._settings.inference)
        return self._opened(stored, signature, session, plan, began_s)

    def _opened(
        self, stored: StoredModel, signature: Signature, session: Session, plan: Tuned, began_s: float
    ) -> Opened:
        trim()  # what compiling left behind
        if self._process is None:
            self._process = plan.settings
        drift = Drift.of(stored, self._settings.drift)
        return Opened(stored, signature, session, plan, drift, time.perf_counter() - began_s)

    def _open(self, stored: StoredModel, share: Share, inference: InferenceSettings) -> Session:
        session = Session(
            stored,
            inference.provider,
            replace(share, max_batch=inference.max_batch),
            inference.precision,
            self._settings.providers,
            inference.spread_lone_image,
        )
        session.warm_up(inference.max_batch)
        manifest, precision = stored.manifest, session.variant.precision
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

    def make_pools(self, opened: Sequence[Opened], closing: ExitStack) -> Pools:
        """Slots and threads for all models, by those opened at start; ``closing`` ends them."""
        slots = Slots(max((one.session.slots for one in opened), default=self._cpus))
        closing.callback(slots.close)
        on_cpu = all(one.session.on_cpu for one in opened)
        settings = self._process or self._settings
        threads = settings.decode.threads(self._cpus, on_cpu)
        pool = ThreadPoolExecutor(threads or self._cpus, thread_name_prefix="decode")
        closing.callback(pool.shutdown)
        closing.callback(self._apart.close)
        self.pools = Pools(slots, pool, pool if threads else None)
        return self.pools

    def serve(self, opened: Opened) -> Served:
        """``opened`` with a queue of its own before the shared slots; on the event loop."""
        if self.pools is None:
            raise RuntimeError("the pools come first")
        stored, session, plan = opened.stored, opened.session, opened.tuned
        inference = plan.settings.inference
        forming = Forming(inference.max_batch, inference.max_delay_s, inference.preferred_batches)
        pools = self.pools
        pipeline = Pipeline(
            stored,
            session,
            self._decoder,
            pools.ahead,
            pools.slots,
            forming,
            self._metrics,
            opened.drift,
            self._apart,
        )
        self._metrics.model_loaded(
            stored.manifest.name,
            stored.manifest.version,
            provider=session.provider,
            precision=session.variant.precision,
            requested=self._settings.inference.provider,
            passed_over=[reason.partition(":")[0] for reason in session.passed_over],
            sha256=session.variant.sha256,
            seconds=opened.seconds,
        )
        return Served(pipeline, plan.profile, opened.signature)


def _share(cpus: int, settings: Settings) -> Share:
    slots = settings.inference.slots
    return Share(cpus, None if slots == "auto" else slots)
