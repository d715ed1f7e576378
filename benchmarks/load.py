"""Loads a service over HTTP/1.1, at little cost to the machine that both share.

    python -m benchmarks.load http://localhost:3000/v1/classify --clients 16
    python -m benchmarks.load http://localhost:3000/v1/classify --rate 100

Programs use it as ``Client``: the same in a process of its own, so that its
CPU time is known and its work is not on the measuring program's event loop.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from benchmarks import wrk
from benchmarks.connection import request_bytes
from benchmarks.traffic import Closed, Load, Open, percentile_ms


def closed_loop(url: str, requests: Sequence[bytes], clients: int, seconds: float, warmup_s: float = 1.0) -> Load:
    """``clients`` that each send the next of the prepared ``requests`` when they have the last answer."""

    async def run() -> Load:
        traffic = Closed(url, requests, seconds, warmup_s)
        await traffic.run(clients)
        return traffic.load()

    return _measured(run())


def open_loop(
    url: str,
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    warmup_s: float = 1.0,
    *,
    opened: int = 32,
    limit: int = 512,
    seed: int = 0,
) -> Load:
    """Poisson arrivals, ``rate`` a second, on ``opened`` connections and more on demand, at most ``limit``."""

    async def run() -> Load:
        traffic = Open(url, requests, seconds, warmup_s, rate, limit, seed)
        await traffic.run(opened)
        return traffic.load()

    return _measured(run())


def _measured(run: Coroutine[Any, Any, Load]) -> Load:
    began = time.process_time()
    load = uvloop.run(run)
    return dataclasses.replace(load, client_cpu_s=time.process_time() - began)


_bodies: list[bytes] = []  # a client process's images, sent to it once


def _start(bodies: list[bytes], cpus: Iterable[int] | None) -> None:
    _bodies[:] = bodies
    if cpus is not None:
        os.sched_setaffinity(0, cpus)


def _closed(url: str, content_type: str, *args: Any) -> Load:
    return closed_loop(url, [request_bytes(url, body, content_type) for body in _bodies], *args)


def _open(url: str, content_type: str, *args: Any) -> Load:
    return open_loop(url, [request_bytes(url, body, content_type) for body in _bodies], *args)


class Client:
    """A process that sends ``bodies``; kept to ``cpus`` where they are given."""

    def __init__(self, bodies: list[bytes], cpus: Iterable[int] | None = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, _start, (bodies, None if cpus is None else list(cpus)))

    def closed(
        self, url: str, clients: int, seconds: float, warmup_s: float = 1.0, content_type: str = "image/jpeg"
    ) -> Load:
        return self._pool.submit(_closed, url, content_type, clients, seconds, warmup_s).result()

    def open(
        self, url: str, rate: float, seconds: float, warmup_s: float = 1.0, content_type: str = "image/jpeg"
    ) -> Load:
        return self._pool.submit(_open, url, content_type, rate, seconds, warmup_s).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


def report(load: Load) -> str:
    """``load`` in a few lines."""
    counts = ", ".join(f"{status or 'no answer'}: {count}" for status, count in sorted(load.statuses.items()))
    lines = [
        f"{load.per_second:.1f} answers/s of {load.offered:.1f} requests/s for {load.seconds:g} s; {counts}",
        "latency " + _spread(load.latencies_s),
    ]
    if load.refusals_s:
        lines.append("refusals " + _spread(load.refusals_s))
    if load.send_lags_s:
        lines.append("sent after it was due " + _spread(load.send_lags_s))
    lines.append(f"client {load.client_cpu_ms:.3f} ms of CPU a request")
    return "\n".join(lines)


def _spread(ordered_s: Sequence[float]) -> str:
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    return ", ".join(f"{name} {percentile_ms(ordered_s, share):.2f} ms" for name, share in shares)


def _by_wrk(options: argparse.Namespace, bodies: list[bytes]) -> str:
    if not wrk.installed():
        return "wrk: not run, it is not installed"
    run = wrk.closed_loop(options.url, bodies, options.clients, max(1, round(options.seconds)))
    return f"wrk: {run.per_second:.1f} answers/s, p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms, {run.failed} failed"


def main(arguments: Sequence[str] | None = None) -> None:
    from benchmarks.images import load_images

    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="where images are POSTed, as http://localhost:3000/v1/classify")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--clients", type=int, default=16, help="closed loop: this many clients (default 16)")
    kind.add_argument("--rate", type=float, help="open loop: this many images a second, Poisson")
    parser.add_argument("--images", type=Path, help="folder or zip of images to send; by default photos or made ones")
    parser.add_argument("--content-type", default="image/jpeg")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the window that counts")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before it")
    parser.add_argument("--connections", type=int, default=512, help="open loop: at most so many")
    parser.add_argument("--wrk", action="store_true", help="closed loop: let wrk do the same afterwards")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole result, every latency included")
    options = parser.parse_args(arguments)
    bodies = load_images(options.images).bodies
    requests = [request_bytes(options.url, body, options.content_type) for body in bodies]
    if options.rate is None:
        load = closed_loop(options.url, requests, options.clients, options.seconds, options.warmup)
    else:
        load = open_loop(
            options.url, requests, options.rate, options.seconds, options.warmup, limit=options.connections
        )
    print(report(load))
    if options.wrk:
        print(_by_wrk(options, bodies))
    if options.json is not None:
        options.json.write_text(json.dumps(dataclasses.asdict(load)))


if __name__ == "__main__":
    main()
