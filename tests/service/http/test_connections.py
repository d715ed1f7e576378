"""Connections on a real socket: how long each may take, and how many there may be."""

from __future__ import annotations

import asyncio
import json

import pytest

from service.http import connections as connections_module
from tests.service.http.protocol_server import Served, check_refused, get, looked_until, serve

pytestmark = pytest.mark.usefixtures("quick_sweeps")


# Times


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", get("/")[:-2]])
def test_a_head_that_does_not_come_is_408(start: bytes) -> None:
    async def use(served: Served) -> None:
        check_refused(await served.ask(start), 408, "slow_client")
        assert served.counted == ["slow_client"]

    serve(use, header_timeout_s=0.05)


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_connection_that_says_nothing_is_closed(before: bytes) -> None:
    async def use(served: Served) -> None:
        assert await served.ask(before) == []
        assert served.counted == []

    serve(use, header_timeout_s=0.05)


def test_a_head_that_trickles_is_408() -> None:
    """However often a byte comes; and what follows the refusal is no request."""

    async def use(served: Served) -> None:
        async with served.client() as client:
            closed = asyncio.create_task(client.until_closed())
            await client.send(b"GET / HTTP/1.1\r\nX: ")
            while not closed.done():
                await client.send(b"y")
                await asyncio.wait([closed], timeout=0.01)
            await client.send(b"\r\n\r\n")
            check_refused(await closed, 408, "slow_client")
        assert served.app.paths == []

    serve(use, header_timeout_s=0.1)


def test_an_idle_connection_is_closed() -> None:
    async def use(served: Served) -> None:
        assert [reply.status for reply in await served.ask(get("/"))] == [200]
        assert [reply.status for reply in await served.ask(get("/"), b"\r\n")] == [200]
        assert served.counted == []

    serve(use, keep_alive_s=0.05)


def test_a_request_at_work_has_time() -> None:
    """All limits of connections have passed: another connection that began later was ended by them."""

    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            for _ in range(3):
                check_refused(await served.ask(b"G"), 408, "slow_client")
            served.app.go.set()
            assert [reply.status for reply in await client.until_closed()] == [200]

    serve(use, header_timeout_s=0.05, keep_alive_s=0.05)


def test_the_rest_of_an_answered_body_has_an_end() -> None:
    async def use(served: Served) -> None:
        found = await served.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nxyz")
        assert [reply.status for reply in found] == [200]

    serve(use, body_idle_s=0.05)


@pytest.mark.parametrize("asked", [("/large",), ("/large", "/after"), ("/large", "/large", "/large")])
def test_an_answer_that_nobody_takes_has_an_end(monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]) -> None:
    """Also where the next request's answer waits behind it."""
    monkeypatch.setattr(connections_module, "_TAKING_S", 0.05)

    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(*(get(path) for path in asked))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            await looked_until(lambda: len(served.kept) == 0)

    serve(use)


def test_a_service_that_stops_waits_less_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "_HURRIED_S", 0.05)

    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/large"))
            (connection,) = served.kept
            await looked_until(lambda: connection.waits_for == "taking")
            served.stopping = True
            await looked_until(lambda: len(served.kept) == 0)

    serve(use)


def test_who_takes_some_of_an_answer_has_time_anew() -> None:
    async def use(served: Served) -> None:
        async with served.client() as client:
            await client.send(get("/large"))
            await client.reader.readexactly(2**20)
            (connection,) = served.kept
            await looked_until(lambda: connection.waits_for == "taking")
            before = connection.since
            await client.reader.readexactly(2**24)
            await looked_until(lambda: connection.waits_for != "taking" or connection.since > before)
            assert connection.waits_for == "taking"
            assert len(await client.reader.readexactly(2**25 - 2**24 - 2**20)) > 0

    serve(use)


def test_one_whose_answer_nobody_takes_makes_room() -> None:
    async def use(served: Served) -> None:
        async with served.client() as reluctant:
            await reluctant.send(get("/large"))
            (connection,) = served.kept
            await looked_until(lambda: connection.waits_for == "taking")
            async with served.client() as other:
                await other.send(get("/other"))
                assert (await other.reply()).status == 200
            assert served.counted == ["connections"]

    serve(use, max_connections=1)


# Numbers


def test_a_connection_beyond_the_bound_takes_the_place_of_one_that_waits() -> None:
    async def use(served: Served) -> None:
        async with served.client() as first, served.client() as second:
            await first.send(get("/first"))
            await first.reply()
            await second.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            async with served.client() as third:
                await third.send(get("/third"))
                assert (await third.reply()).body == b"/third|"
                assert await first.until_closed() == []
                served.app.go.set()
                assert (await second.reply()).body == b"/wait|"
        assert served.counted == ["connections"]

    serve(use, max_connections=2)


def test_where_all_are_in_use_only_probes_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "_SPARE", 1)

    async def use(served: Served) -> None:
        async with served.client() as busy:
            await busy.send(get("/wait"))
            await asyncio.wait_for(served.app.entered.wait(), 10)
            async with served.client() as spare:
                await spare.send(get("/readyz"))
                assert (await spare.reply()).body == b"/readyz|"
                await spare.send(get("/x"))
                [refusal] = await spare.until_closed()
            assert (refusal.status, refusal.headers[b"retry-after"]) == (503, b"1")
            assert json.loads(refusal.body)["error"]["code"] == "too_many_connections"
            served.app.go.set()
            assert (await busy.reply()).status == 200
        assert served.app.paths == ["/wait", "/readyz"]

    serve(use, max_connections=1)


def test_files_are_allowed_as_far_as_they_may_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = [100, 2000]
    monkeypatch.setattr(connections_module.resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(connections_module.resource, "setrlimit", lambda _, to: limits.__setitem__(slice(2), to))
    connections_module.allow_files(1000)
    assert limits == [1000 + 64 + 512, 2000]
    connections_module.allow_files(10)
    assert limits == [1000 + 64 + 512, 2000]
    assert not caplog.messages
    connections_module.allow_files(5000)
    assert limits == [2000, 2000]
    assert "RESNET_MAX_CONNECTIONS=5000" in caplog.text
