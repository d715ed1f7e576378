"""Slow clients cost nothing: what they cost the others, and how they end.

    python -m tests.reliability.slow_clients
    python -m tests.reliability.slow_clients --connections 500 --requests 200

So many connections begin a request and send a byte of its headers now and then, and as many more a byte of a body.
Beside them one client sends good images, as it did before without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

import click
import httpx

from benchmarks.report import Report, Target
from benchmarks.server import HOST, Server, total
from tests.end_to_end.conftest import picture
from tests.reliability.harness import describe, none_of, program, serving
from tests.security.http_shapes import replies

RATIO: Final = "p99 beside slow clients over p99 alone"
MOST_RATIO: Final = 2.0
MORE_FILES: Final = 5

_HEAD: Final = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nX-Slow: "
_BODY: Final = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"
_TRICKLE_S: Final = 2.0
_PATIENCE_S: Final = 120.0


@dataclass
class Found:
    """Latencies in seconds; how slow connections ended, by kind."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    ended: dict[str, Counter[str]] = field(default_factory=lambda: {"headers": Counter(), "body": Counter()})
    open_files: tuple[float, float] = (0, 0)

    @property
    def ratio(self) -> float:
        """Of the 99th percentiles: what slow clients cost."""
        return quantile(self.beside, 99) / quantile(self.alone, 99)


def quantile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


class _Slow:
    """One connection that sends a byte at a time until the service ends it."""

    def __init__(self, port: int, start: bytes) -> None:
        self._port, self._start = port, start

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._writer.write(self._start)

    async def _read(self) -> bytes:
        """All that comes; where the service closes with a byte of ours unread, the end is a reset."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await self._reader.read(2**16):
                data += more
        return data

    async def ended(self) -> str:
        """How: the status of the answer, or ``closed``; ``left open`` where the service waits for ever."""
        reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not reading.done():
                    self._writer.write(b"y")
                    await asyncio.wait([reading], timeout=_TRICKLE_S)
            found, _ = replies(await reading)
        except TimeoutError:
            return "left open"
        finally:
            reading.cancel()
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
        return str(found[0].status) if found else "closed"


async def _hold(port: int, connections: int, told: Connection) -> None:
    kinds = (("headers", _HEAD), ("body", _BODY))
    slow = [(kind, _Slow(port, start)) for kind, start in kinds for _ in range(connections)]
    for start in range(0, len(slow), 50):
        await asyncio.gather(*(one.open() for _, one in slow[start : start + 50]))
    told.send("open")
    ends = await asyncio.gather(*(one.ended() for _, one in slow))
    told.send([(kind, end) for (kind, _), end in zip(slow, ends, strict=True)])


def hold(port: int, connections: int, told: Connection) -> None:
    """``connections`` slow ones of each kind, in this process; ``told`` when they are open, and of their ends."""
    asyncio.run(_hold(port, connections, told))


async def _ask(client: httpx.AsyncClient, image: bytes, found: Found, into: list[float]) -> None:
    began = time.perf_counter()
    response = await client.post("/v1/classify", content=image)
    into.append(time.perf_counter() - began)
    if response.status_code != 200:
        found.refused.append(response.status_code)


async def _open_files(server: Server) -> float:
    """Of the worker that has most; a second old at most."""
    await asyncio.sleep(1.5)
    return total(await asyncio.to_thread(server.metrics), "resnet_process_open_files")


async def measure(server: Server, connections: int, requests: int) -> Found:
    """``requests`` good ones alone, then as many beside twice ``connections`` slow ones and until these are ended."""
    found, image = Found(), picture(1)
    async with httpx.AsyncClient(base_url=server.url, timeout=_PATIENCE_S) as client:
        for _ in range(20):
            await _ask(client, image, found, [])
        before = await _open_files(server)
        for _ in range(requests):
            await _ask(client, image, found, found.alone)
        told, tell = multiprocessing.Pipe(duplex=False)
        # Forking would take over the reader thread's locks; and slow clients in this process would slow the good one.
        process = multiprocessing.get_context("spawn").Process(target=hold, args=(server.port, connections, tell))
        process.start()
        try:
            await asyncio.to_thread(told.recv)
            ends = asyncio.create_task(asyncio.to_thread(told.recv))
            while len(found.beside) < requests or not ends.done():
                await _ask(client, image, found, found.beside)
            for kind, end in await ends:
                found.ended[kind][end] += 1
        finally:
            process.terminate()
            process.join()
        found.open_files = (before, await _open_files(server))
    return found


def allow_connections(connections: int) -> None:
    """Raise this process's limit of open files, as far as it may be; the service inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard))


def fill(report: Report, found: Found) -> None:
    """The figures and the promises."""
    rows = [
        [name, str(len(seconds)), *(f"{1000 * quantile(seconds, percent):.1f}" for percent in (50, 99))]
        for name, seconds in (("alone", found.alone), ("beside slow clients", found.beside))
    ]
    report.table("Good images", ["when", "requests", "p50 ms", "p99 ms"], rows)
    ends = [[kind, how, str(count)] for kind, ended in found.ended.items() for how, count in sorted(ended.items())]
    report.table("How slow connections ended", ["slow with its", "end", "connections"], ends)
    before, after = found.open_files
    report.hold(
        [
            Target(RATIO, found.ratio, MOST_RATIO, at_least=False),
            none_of("good images refused", len(found.refused)),
            none_of("slow connections left open", sum(ended["left open"] for ended in found.ended.values())),
            Target("more open files after", after - before, MORE_FILES, at_least=False, note=f"{before:.0f} before"),
        ]
    )


@program
@click.option("--connections", type=click.IntRange(1), default=500, show_default=True, help="Slow ones of each kind.")
@click.option("--requests", type=click.IntRange(2), default=500, show_default=True, help="Good ones, each time.")
def main(settings: dict[str, str], connections: int, requests: int) -> Report:
    report = Report("reliability.slow_clients")
    allow_connections(connections)
    with serving(**settings) as server:
        describe(report, server)
        found = asyncio.run(measure(server, connections, requests))
    fill(report, found)
    return report


if __name__ == "__main__":
    main()
