"""wrk's output, and wrk itself where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from benchmarks.load import main
from benchmarks.wrk import WrkRun, closed_loop, installed, read
from tests.benchmarks.conftest import Answer, TinyServer, http

PRINTED = """Running 2s test @ http://127.0.0.1:3000/v1/classify
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   960.00us   1.03ms   8.23ms   90.00%
    Req/Sec   104.10      6.12   120.00     70.00%
  Latency Distribution
     50%  961.00us
     75%    2.00ms
     90%    2.10ms
     99%    1.20s
  208 requests in 2.00s, 52.00KB read
  Non-2xx or 3xx responses: 3
Requests/sec:    103.93
Transfer/sec:     25.98KB
"""


def test_what_wrk_prints_is_read() -> None:
    assert read(PRINTED) == WrkRun(103.93, 3, pytest.approx(0.961), pytest.approx(1200))
    assert read(PRINTED.replace("  Non-2xx or 3xx responses: 3\n", "")).failed == 0
    with pytest.raises(ValueError, match="no rate"):
        read("wrk: unable to connect")
    with pytest.raises(ValueError, match="no latency"):
        read("Requests/sec: 1.0")


def test_wrk_sends_the_same(serve: Callable[[Answer], AbstractContextManager[TinyServer]]) -> None:
    if not installed():
        pytest.skip("wrk is not installed")

    async def fine(number: int) -> bytes:
        del number
        return http()

    with serve(fine) as server:
        run = closed_loop(server.url, [b"one", b"two\r\n\x00"], 2, 1)
    assert run.failed == 0
    assert run.per_second > 0
    assert set(server.bodies) == {b"one", b"two\r\n\x00"}
    assert b"content-type: image/jpeg" in server.heads[0].lower()


def test_its_absence_is_said(
    serve: Callable[[Answer], AbstractContextManager[TinyServer]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")

    async def fine(number: int) -> bytes:
        del number
        return http()

    with serve(fine) as server:
        main([server.url, "--clients", "1", "--seconds", "0.1", "--warmup", "0", "--wrk"])
    assert "wrk: not run, it is not installed" in capsys.readouterr().out
