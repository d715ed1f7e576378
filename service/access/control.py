"""The keys that are in force, of clients and of operators; those in files are looked at every second."""

from __future__ import annotations

import asyncio
import hmac
from typing import Final

from service.access.holder import Holder
from service.access.keys import ApiKey, Limits, checked_limits, digest_of, parse_keys
from service.access.watched import WatchedFile
from service.config import variable
from service.settings import AccessSettings
from service.settings.access import checked_admin_key

_LOOK_S: Final = 1.0


class Keyring:
    """Who holds which key. With none in it nobody is let in."""

    def __init__(self, keys: list[ApiKey], workers: int) -> None:
        self._workers = workers
        self._holders: dict[str, Holder] = {}
        self._by_digest: dict[bytes, tuple[bytes, Holder]] = {}
        self.replace(keys)

    def replace(self, keys: list[ApiKey]) -> None:
        """``keys`` and no others are good from now on; whoever is in both keeps what it has used."""
        holders: dict[str, Holder] = {}
        by_digest: dict[bytes, tuple[bytes, Holder]] = {}
        for key in keys:
            holder = holders.get(key.name) or self._holders.get(key.name)
            if holder is None:
                holder = Holder(key.name, key.limits, self._workers)
            holder.allow(key.limits)
            holders[key.name] = holder
            by_digest[key.digest] = (key.digest, holder)
        self._holders, self._by_digest = holders, by_digest

    def holder(self, key: str) -> Holder | None:
        """Whose key it is.

        It is looked up by the hash of what was sent, which tells a sender who measures time nothing about any key; what
        is found is compared in constant time all the same.
        """
        digest = digest_of(key)
        found = None if digest is None else self._by_digest.get(digest)
        if digest is None or found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]


class Access:
    """Who may ask: ``keys`` is None where anybody may. ``ConfigError`` where a file of keys cannot be used."""

    def __init__(self, settings: AccessSettings, workers: int) -> None:
        usual = Limits(settings.key_images_per_s, settings.key_burst, settings.key_concurrency)
        given = settings.api_keys
        self._given = [] if given is None else parse_keys(given.get_secret_value(), usual)
        self._file = self._admin_file = None
        if settings.api_keys_file is not None:
            path = settings.api_keys_file
            self._file = WatchedFile(variable("api_keys_file"), path, lambda text: self._all(parse_keys(text, usual)))
        if settings.admin_key_file is not None:
            path = settings.admin_key_file
            self._admin_file = WatchedFile(variable("admin_key_file"), path, _admin_digest)
        self.keys: Keyring | None = None
        if self._file is not None or given is not None:
            self.keys = Keyring(self._given if self._file is None else self._file.value, workers)
        self._admin = None if settings.admin_key is None else digest_of(settings.admin_key.get_secret_value())

    def _all(self, in_file: list[ApiKey]) -> list[ApiKey]:
        """Those in the file and those in the environment, of which some may be the same."""
        there = {key.digest for key in in_file}
        return checked_limits([*in_file, *(key for key in self._given if key.digest not in there)])

    @property
    def has_admin(self) -> bool:
        """Whether there is a key that opens what only operators may ask."""
        return self._admin is not None or self._admin_file is not None

    def is_admin(self, key: str) -> bool:
        """Whether ``key`` opens it. Compared are hashes, whose length says nothing."""
        digest = digest_of(key)
        wanted = self._admin if self._admin_file is None else self._admin_file.value
        return digest is not None and wanted is not None and hmac.compare_digest(digest, wanted)

    async def watch(self) -> None:
        """Take over what changes in the files, for as long as it runs."""
        while self._file is not None or self._admin_file is not None:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take over what has changed in the files."""
        if self._admin_file is not None:
            await asyncio.to_thread(self._admin_file.changed)
        if self._file is not None and self.keys is not None and await asyncio.to_thread(self._file.changed):
            self.keys.replace(self._file.value)


def _admin_digest(text: str) -> bytes:
    digest = digest_of(checked_admin_key(text.strip()))
    if digest is None:
        raise ValueError("is too long")
    return digest
