"""The load generator, against a real server on a real socket."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import uvloop

from benchmarks.connection import NO_ANSWER, request_bytes
from benchmarks.load import Client, closed_loop, main, open_loop, report
from benchmarks.traffic import Load, Open, percentile_ms
from tests.benchmarks.conftest import Answer, TinyServer, http

Serve = Callable[[Answer], AbstractContextManager[TinyServer]]


async def fine(number: int) -> bytes:
    del number
    return http()


def due_times(seed: int, rate: float, end: float) -> list[float]:
    """When images are due, from the start of the run: what the seed says."""
    source, due, times = random.Random(seed), 0.0, []
    while (due := due + source.expovariate(rate)) < end:
        times.append(due)
    return times


def test_a_closed_loop_counts_every_status(serve: Serve) -> None:
    statuses = (200, 429, 503)

    async def answer(number: int) -> bytes:
        return http(statuses[number % 3])

    with serve(answer) as server:
        load = closed_loop(server.url, [request_bytes(server.url, b"image")], 1, 0.3, 0.0)
    assert set(load.statuses) == set(statuses)
    assert max(load.statuses.values()) - min(load.statuses.values()) <= 1
    assert sum(load.statuses.values()) == load.requests == len(server.bodies)
    assert load.failed == load.statuses[503]
    assert len(load.refusals_s) == load.refused == load.statuses[429]
    # The very last answer may come after the window.
    assert load.statuses[200] - load.good in (0, 1)
    assert len(load.latencies_s) == load.statuses[200]
    assert load.per_second == load.good / 0.3


def test_each_client_has_one_connection_and_bodies_take_turns(serve: Serve) -> None:
    with serve(fine) as server:
        requests = [request_bytes(server.url, body) for body in (b"one", b"two")]
        closed_loop(server.url, requests, 3, 0.2, 0.0)
    assert server.connections == 3
    assert {b"one", b"two"} == set(server.bodies)
    assert abs(server.bodies.count(b"one") - server.bodies.count(b"two")) <= 1
    assert all(head.startswith(b"POST /classify?top_k=1 HTTP/1.1\r\n") for head in server.heads)


def test_what_begins_in_the_warm_up_does_not_count(serve: Serve) -> None:
    with serve(fine) as server:
        load = closed_loop(server.url, [request_bytes(server.url, b"x")], 2, 0.2, 0.2)
    assert 0 < sum(load.statuses.values()) < len(server.bodies)
    assert load.requests == len(server.bodies)


def test_answers_in_chunks_and_in_pieces_are_read(serve: Serve) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    async def answer(number: int) -> bytes:
        return chunked if number % 2 else http(200, b"x" * 300_000)

    with serve(answer) as server:
        load = closed_loop(server.url, [request_bytes(server.url, b"x")], 1, 0.2, 0.0)
    assert set(load.statuses) == {200}
    assert load.statuses[200] == len(server.bodies) > 1


def test_a_connection_that_the_server_closes_is_opened_anew(serve: Serve) -> None:
    async def answer(number: int) -> bytes:
        del number
        return http(200, b"{}", b"Connection: close")

    with serve(answer) as server:
        load = closed_loop(server.url, [request_bytes(server.url, b"x")], 1, 0.2, 0.0)
    assert set(load.statuses) == {200}
    assert server.connections >= len(server.bodies) > 1


def test_a_lost_connection_is_a_request_without_an_answer(serve: Serve) -> None:
    async def answer(number: int) -> bytes | None:
        return None if number % 2 else http()

    with serve(answer) as server:
        load = closed_loop(server.url, [request_bytes(server.url, b"x")], 1, 0.2, 0.0)
    assert set(load.statuses) == {200, NO_ANSWER}
    assert load.failed == load.statuses[NO_ANSWER]


def test_nobody_there_is_no_answer() -> None:
    load = closed_loop("http://127.0.0.1:1/", [b"x"], 1, 0.1, 0.0)
    assert set(load.statuses) == {NO_ANSWER}
    load = open_loop("http://127.0.0.1:1/", [b"x"], 100, 0.3, 0.0)
    assert set(load.statuses) == {NO_ANSWER}


def test_an_open_loop_sends_what_is_due_whatever_the_service_does(serve: Serve) -> None:
    with serve(fine) as server:
        load = open_loop(server.url, [request_bytes(server.url, b"x")], 300, 0.5, 0.0, opened=4, seed=3)
    assert load.statuses == {200: len(server.bodies)}
    # The last image may be due so shortly before the end that the clock passes it.
    assert len(due_times(3, 300, 0.5)) - len(server.bodies) in (0, 1)
    assert len(load.send_lags_s) == len(server.bodies)


def test_latency_counts_from_when_an_image_was_due(serve: Serve) -> None:
    """One connection, and a server that stalls until twenty images are due: all but the first wait in the client."""
    stalled = 20
    release = asyncio.Event()

    async def answer(number: int) -> bytes:
        if number == 0:
            await release.wait()
        return http()

    with serve(answer) as server:

        class Watched(Open):
            due: list[float] = []  # noqa: RUF012

            def _dispatch(self, due: float, now: float) -> None:
                super()._dispatch(due, now)
                self.due.append(due)
                if len(self.due) == stalled:
                    server.loop.call_soon_threadsafe(release.set)

        async def run() -> Load:
            traffic = Watched(server.url, [request_bytes(server.url, b"x")], 0.5, 0.0, 200, 1, 7)
            await traffic.run(1)
            return traffic.load()

        load = uvloop.run(run())
    assert server.connections == 1
    assert set(load.statuses) == {200}
    waited = sorted(Watched.due[stalled - 1] - due for due in Watched.due[:stalled])
    for latency, least in zip(load.latencies_s[-stalled:], waited, strict=True):
        assert latency >= least
    assert load.send_lags_s[-1] >= waited[-2]  # the second image was due early and sent last of all


def test_no_more_connections_than_allowed(serve: Serve) -> None:
    held = asyncio.Event()

    async def answer(number: int) -> bytes:
        if number == 2:
            held.set()
        await held.wait()  # the first two are held until the third, on the third connection, is here
        return http()

    with serve(answer) as server:
        load = open_loop(server.url, [request_bytes(server.url, b"x")], 100, 0.5, 0.0, opened=0, limit=3)
    assert server.connections == 3
    assert set(load.statuses) == {200}


def test_a_client_is_a_process_that_does_the_same(serve: Serve) -> None:
    with serve(fine) as server, Client([b"image"]) as client:
        closed = client.closed(server.url, 2, 0.2, 0.0, "image/png")
        opened = client.open(server.url, 50, 0.3, 0.0)
    assert set(closed.statuses) == set(opened.statuses) == {200}
    assert set(server.bodies) == {b"image"}
    assert b"content-type: image/png" in server.heads[0].lower()
    assert closed.client_cpu_ms > 0


def test_percentiles_are_nearest_ranks() -> None:
    seconds = [i / 1000 for i in range(1, 101)]
    assert percentile_ms(seconds, 0.5) == pytest.approx(50)
    assert percentile_ms(seconds, 0.99) == pytest.approx(99)
    assert percentile_ms(seconds, 1.0) == pytest.approx(100)
    assert percentile_ms(seconds[:1], 0.99) == pytest.approx(1)
    assert percentile_ms([], 0.5) != percentile_ms([], 0.5)  # not a number


def test_the_command_prints_and_writes(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(fine) as server:
        main([server.url, "--rate", "50", "--seconds", "0.3", "--warmup", "0", "--json", str(tmp_path / "load.json")])
    written = Load(**json.loads((tmp_path / "load.json").read_text()))
    assert written.statuses == {"200": len(server.bodies)}
    printed = capsys.readouterr().out
    assert "ms of CPU a request" in printed
    assert "sent after it was due" in printed
    assert "refusals" not in report(written)
