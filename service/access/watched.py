"""A small file that means something, and is read again when it changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from service.config import ConfigError

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 2**20

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """What ``parse`` makes of the text in ``path``. All of it blocks; the file may be on a slow disk.

    It is compared by its bytes: of times and sizes, files that orchestrators swap may have the same.
    """

    def __init__(self, variable: str, path: Path, parse: Callable[[str], T]) -> None:
        self._what = f"{variable}={str(path)!r}"
        self._path = path
        self._parse = parse
        self._content = self._read()
        self.value = self._parsed(self._content)
        self._told = ""

    def changed(self) -> bool:
        """Whether it has a new ``value``. What cannot be read or parsed changes nothing, and is logged once."""
        try:
            content = self._read()
            if content == self._content:
                self._told = ""
                return False
            self.value = self._parsed(content)
        except ConfigError as error:
            if str(error) != self._told:
                self._told = str(error)
                logger.error("%s; what was read before is still in force", error)
            return False
        self._content = content
        self._told = ""
        logger.info("%s was read again", self._what)
        return True

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{self._what}: {error.strerror or error}") from error
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{self._what}: is larger than {_MOST_BYTES} bytes")
        return content

    def _parsed(self, content: bytes) -> T:
        try:
            return self._parse(content.decode())
        except UnicodeDecodeError:
            raise ConfigError(f"{self._what}: is no text") from None
        except ValueError as error:
            raise ConfigError(f"{self._what}: {error}") from None
