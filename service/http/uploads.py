"""A job's body as it comes, written to its input file; and at its end, what images that holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

from starlette.datastructures import Headers

from service.errors import BadRequest
from service.http.bodies import BodyReader, check_encoding, is_json
from service.http.forms import FormFiles, is_multipart
from service.http.json_images import unpack
from service.http.routing import Call
from service.jobs.archives import Archive, is_zip
from service.jobs.record import Contents, Image, clean_name
from service.jobs.store import disk_errors
from service.settings import JobSettings

_BLOCK: Final = 2**20  # bytes gathered before a thread is asked to write them


async def receive_images(
    call: Call,
    path: Path,
    settings: JobSettings,
    max_image_bytes: int,
    idle_s: float,
    received: Callable[[int], None],
) -> Contents:
    """The images of a body that is written to ``path``, which is there, as it comes; ``received`` is told its bytes.

    Raises ``BadRequest``, ``BodyTooLarge``, ``UnsupportedEncoding``, ``TooManyImages`` and ``StorageFull``. A pause of
    more than ``idle_s`` ends the call, as a service that stops waits for it.
    """
    headers = call.headers
    check_encoding(headers)
    file = _File(path)
    try:
        taker: _Taker
        if is_multipart(headers):
            taker = _Form(headers, file, settings.jobs_max_images)
        else:
            taker = _Whole(headers, file, settings, max_image_bytes)
        async for block in _blocks(call, settings.body_max_bytes, idle_s):
            received(len(block))
            await asyncio.to_thread(taker.write, block)
        return await asyncio.to_thread(taker.finish)
    finally:
        await asyncio.to_thread(file.close)


async def _blocks(call: Call, max_bytes: int, idle_s: float) -> AsyncIterator[bytes]:
    """The body in pieces of some size; ``BodyTooLarge`` before more than ``max_bytes`` of it are given."""
    reader, gathered = BodyReader(call, max_bytes, idle_s), bytearray()
    while reader.more:
        gathered += await reader.read()
        if gathered and (len(gathered) >= _BLOCK or not reader.more):
            yield bytes(gathered)
            gathered.clear()


class _Taker(Protocol):
    """Blocks; called in a thread."""

    def write(self, data: bytes) -> None:
        """More of the body."""

    def finish(self) -> Contents:
        """The body is at its end; what is wrong with it is raised."""


class _File:
    """The input file. ``end`` cuts it to what was written, as it was made with room for all that might come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("r+b", buffering=0)
        self.size = 0

    def write(self, data: bytes) -> None:
        with disk_errors():
            rest = memoryview(data)
            while rest:
                written = self._file.write(rest)
                self.size += written
                rest = rest[written:]

    def end(self) -> None:
        self._file.truncate()
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class _Form(FormFiles):
    """The files of a form, one behind the other, without what is between them."""

    def __init__(self, headers: Headers, file: _File, max_images: int) -> None:
        super().__init__(headers, max_images)
        self._file = file
        self._name: str | None = None
        self._start = 0
        self._images: list[Image] = []

    def begin(self, name: str) -> None:
        self._name = clean_name(name)
        self._start = self._file.size

    def data(self, data: bytes) -> None:
        self._file.write(data)

    def end(self) -> None:
        self._images.append(Image(self._name, self._start, self._file.size - self._start))

    def write(self, data: bytes) -> None:
        self.feed(data)

    def finish(self) -> Contents:
        self.check_ended()
        self._file.end()
        return Contents(kind="packed", images=self._images)


class _Whole:
    """The body as it is: an archive, a JSON document, or one image."""

    def __init__(self, headers: Headers, file: _File, settings: JobSettings, max_image_bytes: int) -> None:
        self._in_json = is_json(headers)
        self._file = file
        self._settings = settings
        self._max_image_bytes = max_image_bytes
        self._start = b""

    def write(self, data: bytes) -> None:
        if len(self._start) < 4:
            self._start += data[:4]
        self._file.write(data)

    def finish(self) -> Contents:
        size, path, settings = self._file.size, self._file.path, self._settings
        self._file.end()
        if not size:
            raise BadRequest("the body is empty; send images")
        if self._in_json:
            return unpack(path, settings.jobs_max_images, self._max_image_bytes)
        if is_zip(self._start):
            with Archive(path, settings.jobs_max_images, 0) as archive:
                return archive.contents(settings.jobs_max_unpacked_bytes)
        return Contents(kind="packed", images=[Image(None, 0, size)])
