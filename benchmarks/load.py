"""A closed-loop HTTP/1.1 client that costs little: prepared requests, one connection a client."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What a run gave: answers a second, latencies in seconds, answers that were no 200, the client's CPU seconds."""

    per_second: float
    latencies_s: list[float]
    failed: int
    client_cpu_s: float

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def request_bytes(url: str, body: bytes) -> bytes:
    """A whole ``POST`` of ``body``, ready to be written."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return status


async def closed_loop(url: str, bodies: list[bytes], clients: int, seconds: float) -> Load:
    """``clients`` that each send the next image as soon as they have the last answer, for ``seconds``."""
    parts = urlsplit(url)
    requests = [request_bytes(url, body) for body in bodies]
    latencies: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        turn = number * len(requests) // clients
        while (began := time.perf_counter()) < end:
            writer.write(requests[turn % len(requests)])
            failed += await _answer(reader) != 200
            latencies.append(time.perf_counter() - began)
            turn += 1
        writer.close()
        await writer.wait_closed()

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    elapsed = time.perf_counter() - began
    return Load(len(latencies) / elapsed, latencies, failed, time.process_time() - cpu)
