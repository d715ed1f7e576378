"""A store that is no folder, kept in one: by one worker for all, seldom while the store cannot be reached.

The others, and that worker, too, read the folder as they would any store.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from model_store.locations import StoreUnreachable
from model_store.store import ModelStore, StoreError
from service.metrics import Metrics
from service.models.selection import named, select
from service.models.view import ModelView
from service.settings import StoreSettings
from service.tuning.profile import one_line

if TYPE_CHECKING:
    from model_store.remote import RemoteStore
    from model_store.remote_index import Listed

logger = logging.getLogger(__name__)

LEADER_FILE: Final = "mirror.lock"
_LONGEST_PAUSE_S: Final = 300.0
_MOST_DOUBLINGS: Final = 10


class Mirror:
    """``settings.folder``, brought in line with the store at the URL ``settings.model_store``.

    ``run_dir`` is the folder that the service's workers share, None where there is one process alone.
    """

    def __init__(
        self,
        settings: StoreSettings,
        run_dir: Path | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._metrics = metrics
        self._clock = clock
        self._store: RemoteStore | None = None
        self._one_at_a_time = threading.Lock()
        self._ending = threading.Event()
        self._failures = 0
        self._broken_until_s: dict[tuple[str, str], float] = {}
        self._told: dict[str, str] = {}

    @classmethod
    def of(cls, settings: StoreSettings, run_dir: Path | None = None, metrics: Metrics | None = None) -> Self | None:
        """That of the store, where it is no folder."""
        return None if isinstance(settings.model_store, Path) else cls(settings, run_dir, metrics)

    def begin(self) -> None:
        """Fetch what is to be served, before anything is.

        Where the store cannot be reached, what was fetched earlier is served; ``StoreError`` where nothing was.
        """
        try:
            self._sync()
        except StoreUnreachable as error:
            there = self._settings.folder
            if not any(there.glob("*/*/manifest.json")):
                raise
            logger.warning("%s; what was fetched earlier is served, from %s", error, there)

    def start(self) -> None:
        """Follow the store from now on, in a thread that does not outlive the process: a fetch may take minutes."""
        threading.Thread(target=self._run, name="mirror", daemon=True).start()

    def stop(self) -> None:
        """Look no more; what is being fetched goes on where it broke off when the service starts again."""
        self._ending.set()

    async def refresh(self) -> None:
        """Look now, whoever else does; where that fails, the mirror stays what it is."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def look() -> None:
            self.sync()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=look, name="mirror-now", daemon=True).start()
        await done.wait()

    def sync(self) -> None:
        """Fetch what came; what goes wrong is told once and raised to nobody."""
        try:
            self._sync()
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                expected = isinstance(error, StoreError | OSError)
                logger.warning(
                    "%s; what is loaded is served on, and the store is asked again",
                    one_line(str(error)), exc_info=None if expected else error,
                )  # fmt: skip
        else:
            if self._failures:
                logger.info("%s: the store answers again", self._settings.model_store)
            self._failures = 0
        if self._metrics is not None:
            self._metrics.store_reachable(str(self._settings.model_store), not self._failures)

    @property
    def pause_s(self) -> float:
        """Until the next look: longer and longer while none succeeds, and never the same for a fleet."""
        usual_s = self._settings.watch_s
        longest_s = max(usual_s, _LONGEST_PAUSE_S)
        pause_s: float = min(usual_s * 2.0 ** min(self._failures, _MOST_DOUBLINGS), longest_s)
        return pause_s * random.uniform(0.75, 1.0)  # noqa: S311 - no secret  # nosec B311

    def _run(self) -> None:
        with self._leading():
            while not self._ending.wait(self.pause_s):
                self.sync()

    @contextmanager
    def _leading(self) -> Iterator[None]:
        """Waits for the worker that follows the store already, should that end."""
        if self._run_dir is None:
            yield
            return
        with (self._run_dir / LEADER_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sync(self) -> None:
        with self._one_at_a_time:
            if self._store is None:
                from model_store.remote import RemoteStore  # a service over a folder does not load fsspec

                self._store = RemoteStore(str(self._settings.model_store), self._settings.folder)
            with self._store.alone():
                self._follow_all(self._store)

    def _follow_all(self, store: RemoteStore) -> None:
        index = store.index()
        if not index:  # rather a mistake than a wish: what is served stays
            raise StoreUnreachable(f"{store}: the store has no model; export one, or set RESNET_MODEL_STORE")
        wanted = named(self._settings)
        for name in sorted({*index, *ModelStore(store.root).names()}):
            if wanted and name not in wanted:
                continue
            try:
                if name in index:
                    self._fetch(store, name, index[name])
                else:
                    store.follow(name)
            except StoreUnreachable:
                raise
            except (StoreError, OSError) as error:  # of this model alone, as a disk that is too small for it
                self._tell(name, str(error))
            else:
                self._told.pop(name, None)

    def _fetch(self, store: RemoteStore, name: str, listed: Listed) -> None:
        """What is served of one model. In the place of a version that is broken, the one that would be without it."""
        named_versions = {*store.aliases(name).values(), store.promoted(name)}
        broken = {v for v in listed.versions if self._clock() < self._broken_until_s.get((name, v), -float("inf"))}
        while True:
            failed = set()
            for version in sorted(self._versions(store, name, broken), key=int):
                try:
                    store.fetch(name, version)
                except StoreUnreachable:
                    raise
                except (StoreError, OSError) as error:  # broken there, or too large for the disk here
                    failed.add(version)
                    self._broken_until_s[name, version] = self._clock() + _LONGEST_PAUSE_S
                    if self._metrics is not None:
                        self._metrics.loads(name, "failed")
                    logger.error("model %s version %s is not fetched: %s", name, version, one_line(str(error)))
            if not failed:
                break
            broken |= failed
        if not broken & named_versions:  # else what they named before stays
            store.follow(name)

    def _versions(self, store: RemoteStore, name: str, broken: Collection[str]) -> set[str]:
        aliases = store.aliases(name)
        view = ModelView(dict.fromkeys(store.versions(name), ()), store.promoted(name), aliases)
        try:
            chosen = select(name, self._settings, view, broken).versions
        except StoreError:  # asks for what is not there: whoever loads it says so
            chosen = ()
        promoted = [] if view.promoted is None else [view.promoted]
        return {*chosen, *aliases.values(), *promoted} - set(broken)

    def _tell(self, name: str, trouble: str) -> None:
        """Once, until it is another."""
        if self._told.get(name) != trouble:
            self._told[name] = trouble
            logger.error("model %s: %s; what was fetched stays", name, one_line(trouble))
