"""The client for asyncio: the same methods, awaited, any number at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

from service.client import calls
from service.client.base import DEFAULT_OPTIONS, DEFAULT_URL, Base, Options
from service.client.calls import Call, Image, T
from service.client.errors import ClientError
from service.client.exchange import CONNECTIONS, Gathered, translated
from service.client.results import Classification, Embedding, Explanation


class AsyncClient(Base):
    """As ``Client``, with ``async with`` and ``await``. ``connections``: most at once."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        options: Options = DEFAULT_OPTIONS,
        *,
        connections: int = CONNECTIONS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, options)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._places = asyncio.Semaphore(connections)
        self._http = httpx.AsyncClient(transport=transport, limits=limits, **self._http_arguments())

    async def classify(
        self,
        images: Sequence[Image],
        *,
        top_k: int | None = None,
        min_probability: float | None = None,
        include: Sequence[str] = (),
    ) -> list[Classification]:
        """The best ``top_k`` classes of each image, in order; ``include`` names a result's parts, as the API does."""
        query = self._query(top_k=top_k, min_probability=min_probability, include=tuple(include))
        results: list[Classification] = []
        for group in self._groups(images):
            found = await self._send(calls.classify(await _read(group), query))
            results += found
        return results

    async def embed(self, images: Sequence[Image], *, normalize: bool | None = None) -> list[Embedding]:
        """The embedding of each image, in order; of length 1 with ``normalize``."""
        query = self._query(normalize=normalize)
        results: list[Embedding] = []
        for group in self._groups(images):
            found = await self._send(calls.embed(await _read(group), query))
            results += found
        return results

    async def explain(self, image: Image, *, class_: str | int | None = None) -> Explanation:
        """Where the network saw ``class_``, a label or an index; the best class if None."""
        (data,) = await _read([image])
        return (await self._send(calls.explain(data, self._query(class_=class_))))[0]

    async def explain_png(
        self,
        image: Image,
        *,
        class_: str | int | None = None,
        style: str | None = None,
        opacity: float | None = None,
        colormap: str | None = None,
    ) -> bytes:
        """The same as a PNG: ``style`` is heatmap or overlay, ``opacity`` from 0 to 1."""
        query = self._query(class_=class_, style=style, opacity=opacity, colormap=colormap)
        (data,) = await _read([image])
        return await self._send(calls.explain_png(data, query))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        failures = 0
        while True:
            try:
                return await self._attempt(call)
            except ClientError as error:
                failures += 1
                pause_s = self._pause_s(error, failures)
            await asyncio.sleep(pause_s)

    async def _attempt(self, call: Call[T]) -> T:
        async with self._places:  # its time begins when it has a connection, however many there are
            return await self._exchange(call)

    async def _exchange(self, call: Call[T]) -> T:
        deadline = time.monotonic() + self._options.timeout_s
        request = self._http.build_request(**call.arguments())
        with translated(self.url):
            response = await self._http.send(request, stream=True)
            try:
                gathered = Gathered(response, call.max_answer_bytes, deadline)
                async for chunk in response.aiter_bytes():
                    gathered.add(chunk)
            finally:
                await response.aclose()
        return call.result(response, gathered.body)


async def _read(images: Sequence[Image]) -> list[bytes]:
    """Files are read in a thread: a slow disk holds up nobody else."""
    if all(isinstance(image, bytes) for image in images):
        return [calls.read_image(image) for image in images]
    return await asyncio.to_thread(lambda: [calls.read_image(image) for image in images])
