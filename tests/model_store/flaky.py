"""A file system in memory that breaks off: ``flaky://``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

URL = "flaky://store/models"


class FlakyFileSystem(MemoryFileSystem):
    """``left`` bytes are given out before reading fails; ``broken`` names what fails at all.

    read    -- what was read, as (path, start, bytes).
    written -- what was written, in order.
    """

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left: ClassVar[float] = float("inf")
    broken: ClassVar[set[str]] = set()
    read: ClassVar[list[tuple[str, int, int]]] = []
    written: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def find(self, path: str, **options: Any) -> Any:
        self._check("find", path)
        return super().find(path, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        self._check("read", path)
        data: bytes = super().cat_file(path, start=start, end=end)
        if len(data) > type(self).left:
            raise OSError("the line is cut")
        type(self).left -= len(data)
        self.read.append((path, start or 0, len(data)))
        return data

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._check("write", rpath)
        super().put_file(lpath, rpath, **options)
        self.written.append(rpath)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self._check("write", path)
        super().pipe_file(path, value, mode=mode, **options)
        self.written.append(path)

    def _check(self, what: str, path: str) -> None:
        if what in self.broken or any(path.endswith(end) for end in self.broken):
            raise OSError("the line is cut")

    def rm_file(self, path: str) -> None:
        self._check("delete", path)
        super().rm_file(path)


@contextmanager
def flaky() -> Iterator[type[FlakyFileSystem]]:
    """Registered, empty and whole."""
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    kind = FlakyFileSystem
    kind.store.clear()
    kind.pseudo_dirs[:] = [""]
    kind.left = float("inf")
    kind.broken.clear()
    kind.read.clear()
    kind.written.clear()
    yield kind
    kind.clear_instance_cache()
