"""A store that is no folder, kept in one: by whichever worker comes first, seldom while it cannot be reached."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from model_store.names import STABLE
from model_store.store import StoreError, StoreUnreachable
from service.models.selection import named, select
from service.models.view import ModelView
from service.settings import StoreSettings

if TYPE_CHECKING:
    from model_store.remote import Listed, RemoteStore

logger = logging.getLogger(__name__)

_LOCK: Final = ".lock"
_LONGEST_PAUSE_S: Final = 300.0


class Mirror:
    """``settings.folder``, brought in line with the store at ``settings.model_store``. Not for two threads."""

    def __init__(self, settings: StoreSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._store: RemoteStore | None = None
        self._failures = 0
        self._next_s = -float("inf")
        self._broken_until_s: dict[tuple[str, str], float] = {}

    @classmethod
    def of(cls, settings: StoreSettings) -> Self | None:
        """That of the store, where it is no folder."""
        return None if isinstance(settings.model_store, Path) else cls(settings)

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
            from model_store.remote import RemoteStore  # a service over a folder does not load fsspec

            self._store = RemoteStore(str(self._settings.model_store), self._settings.folder)
        wanted = named(self._settings)
        for name, listed in self._store.index().items():
            if not wanted or name in wanted:
                self._fetch(self._store, name, listed)

    def _fetch(self, store: RemoteStore, name: str, listed: Listed) -> None:
        """What is served of one model. In the place of a version that is broken, the one that would be without it."""
        broken = {v for v in listed.versions if self._clock() < self._broken_until_s.get((name, v), 0.0)}
        while True:
            failed = set()
            for version in self._versions(name, listed, broken):
                try:
                    store.fetch(name, version)
                except StoreUnreachable:
                    raise
                except StoreError as error:
                    failed.add(version)
                    self._broken_until_s[name, version] = self._clock() + _LONGEST_PAUSE_S
                    logger.error("model %s version %s: not fetched: %s", name, version, error)
            if not failed:
                break
            broken |= failed
        if not broken & set(listed.aliases.values()):  # else what they named before stays
            store.follow(name)

    def _versions(self, name: str, listed: Listed, broken: Collection[str]) -> set[str]:
        aliases = {alias: version for alias, version in listed.aliases.items() if alias != STABLE}
        view = ModelView(dict.fromkeys(listed.versions, ()), listed.aliases.get(STABLE), aliases)
        try:
            chosen = select(name, self._settings, view, broken).versions
        except StoreError:  # asks for what is not there: whoever loads it says so
            chosen = ()
        return {*chosen, *listed.aliases.values()} & set(listed.versions) - set(broken)
