"""A store that is no folder, kept in one: by whichever worker comes first, and less often while it cannot be reached."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from model_store.names import STABLE
from model_store.remote import Listed, RemoteStore, StoreUnreachable
from model_store.store import StoreError
from service.models.selection import named, select
from service.models.view import ModelView
from service.settings import StoreSettings

logger = logging.getLogger(__name__)

_LOCK: Final = ".lock"
_LONGEST_PAUSE_S: Final = 300.0


class Mirror:
    """The folder ``settings.folder``, brought in line with the store at ``settings.model_store``. Not for two threads."""

    def __init__(self, settings: StoreSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._store: RemoteStore | None = None
        self._failures = 0
        self._next_s = -float("inf")
        self._told: dict[tuple[str, str], str] = {}

    def begin(self) -> None:
        """Fetch what is to be served, before anything is; where the store cannot be reached, what an earlier service
        left in the cache is served. ``StoreError`` where there is nothing.
        """
        try:
            self._sync()
        except StoreUnreachable as error:
            there = self._settings.folder
            if not any(there.glob("*/*/manifest.json")):
                raise
            logger.warning("%s; serving what is in %s", error, there)

    def sync(self) -> None:
        """Fetch what came, unless another worker does, or the store failed a moment ago."""
        if self._clock() < self._next_s:
            return
        try:
            with self._alone() as alone:
                if alone:
                    self._sync()
        except (StoreError, OSError) as error:
            self._failures += 1
            pause_s = min(self._settings.watch_s * 2**self._failures, _LONGEST_PAUSE_S)
            self._next_s = self._clock() + pause_s
            logger.warning("%s; what is loaded is served on, asked again in %.0f s", error, pause_s)
        else:
            if self._failures:
                logger.info("%s: the store answers again", self._settings.model_store)
            self._failures = 0

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        folder = self._settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _sync(self) -> None:
        if self._store is None:
            self._store = RemoteStore(str(self._settings.model_store), self._settings.folder)
        wanted = named(self._settings)
        for name, listed in self._store.index().items():
            if not wanted or name in wanted:
                self._fetch(self._store, name, listed)

    def _fetch(self, store: RemoteStore, name: str, listed: Listed) -> None:
        """What is served of one model; a version that is broken is told once, and hinders no other."""
        whole = True
        for version in self._versions(name, listed):
            try:
                store.fetch(name, version)
            except StoreUnreachable:
                raise
            except StoreError as error:
                whole = False
                self._tell((name, version), str(error))
            else:
                self._told.pop((name, version), None)
        if whole:
            store.follow(name)

    def _versions(self, name: str, listed: Listed) -> set[str]:
        aliases = {alias: version for alias, version in listed.aliases.items() if alias != STABLE}
        view = ModelView({version: () for version in listed.versions}, listed.aliases.get(STABLE), aliases)
        try:
            chosen = select(name, self._settings, view).versions
        except StoreError as error:  # asks for what is not there: whoever loads it says so
            self._tell((name, ""), str(error))
            chosen = ()
        return {*chosen, *listed.aliases.values()} & set(listed.versions)

    def _tell(self, what: tuple[str, str], trouble: str) -> None:
        if self._told.get(what) != trouble:
            self._told[what] = trouble
            logger.error("not fetched: %s", trouble)
