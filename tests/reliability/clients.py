"""Clients that know what each image's answer is, and what becomes of each of their requests."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.connection import request_bytes
from benchmarks.server import HOST, Server
from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import Reference, picture

ANSWER_LIMIT_S = 60.0
"""Longer than any deadline of the service: what has no answer by then has none."""

SETTINGS = {"RESNET_PRECISION": "fp32"}
"""Of a service whose answers are compared with ONNX Runtime's."""


@dataclass(frozen=True)
class Image:
    """An image, also as a whole request, and its answer."""

    data: bytes
    request: bytes
    label: str
    probability: float

    def is_answered_by(self, body: bytes) -> bool:
        best = json.loads(body)["results"][0]["predictions"][0]
        return best["label"] == self.label and abs(best["probability"] - self.probability) < 1e-3


ANSWERED_LIMIT_S: Final = 300.0


@functools.cache
def images(count: int = 40) -> Sequence[Image]:
    """Images with their answers by ONNX Runtime called directly; most have one of their own, so that a swap is seen."""
    store = ModelStore(EMBEDDED_MODELS)
    reference = Reference(store.resolve(store.names()[0]))
    made = []
    for seed in range(count):
        data = picture(seed)
        label, probability = max(reference.probabilities(data).items(), key=lambda found: found[1])
        made.append(Image(data, request_bytes("http://x/v1/classify", data), label, probability))
    assert len({(one.label, round(one.probability, 3)) for one in made}) > count // 2
    return made


class Refused(Exception):
    """The port is closed: the service has taken nothing."""


@dataclass
class Connection:
    """One to ``port``, kept while the service keeps it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False
    open: bool = True

    @classmethod
    async def to(cls, port: int) -> Connection:
        try:
            return cls(*await asyncio.open_connection(HOST, port))
        except ConnectionRefusedError as error:
            raise Refused from error

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; ``ConnectionError`` or ``IncompleteReadError`` where there is no whole answer."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        body = await self.reader.readexactly(int(head.partition(b"\ncontent-length:")[2].partition(b"\r\n")[0]))
        self.used, self.open = True, b"\nconnection: close" not in head
        return int(head[9:12]), body

    def close(self) -> None:
        self.open = False
        self.writer.close()


LOST = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


@dataclass
class Tally:
    """What became of all requests."""

    answered: int = 0
    wrong: int = 0
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    busy: int = 0
    stale: int = 0
    seconds: list[float] = field(default_factory=list)


def is_refused(port: int) -> bool:
    """Whether a new connection to ``port`` is refused."""
    with socket.socket() as client:
        client.settimeout(5)
        try:
            return client.connect_ex((HOST, port)) != 0
        except TimeoutError:
            return False


class Together:
    """Clients that send one image after the other, on a connection each, so that all workers have some."""

    def __init__(self, server: Server, clients: int) -> None:
        self.tally = Tally()
        self.begun: dict[int, float] = {}
        self.failed: list[float] = []
        self._port = server.port
        self._numbers = itertools.count()
        self._tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while True:
            await self._one(next(self._numbers))

    async def _one(self, number: int) -> None:
        image = images()[number % len(images())]
        began = self.begun[number] = time.monotonic()
        connection = None
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                connection = await Connection.to(self._port)
                status, body = await connection.ask(image.request)
        except LOST:
            self.failed.append(began)
            return
        finally:
            del self.begun[number]
            if connection is not None:
                connection.close()
        assert status == 200, body
        self.tally.answered += 1
        self.tally.wrong += not image.is_answered_by(body)
        self.tally.seconds.append(time.monotonic() - began)

    async def answered(self, more: int) -> None:
        wanted = self.tally.answered + more
        async with asyncio.timeout(ANSWERED_LIMIT_S):
            while self.tally.answered < wanted:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
