"""LoadGen's summaries, and LoadGen itself against a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from benchmarks.mlperf import Carrier, read_summary, run_scenario
from tests.benchmarks.conftest import Answer, TinyServer, http

SUMMARY = """================================================
MLPerf Results Summary
================================================
Scenario : SingleStream
90.0th percentile latency (ns) : 18626261
Result is : INVALID
  Min duration satisfied : NO
  Min queries satisfied : Yes
  Early stopping satisfied: NO
"""


def test_a_summary_is_read_with_its_verdict() -> None:
    value, unit, verdict = read_summary("SingleStream", SUMMARY)
    assert value == pytest.approx(18.626261)
    assert unit == "p90 ms"
    assert verdict == "INVALID, Min duration satisfied : NO, Early stopping satisfied: NO"
    with pytest.raises(ValueError, match="no Samples per second"):
        read_summary("Offline", SUMMARY)


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_loadgen_runs_over_http(serve: Callable[[Answer], AbstractContextManager[TinyServer]], scenario: str) -> None:
    loadgen = pytest.importorskip("mlperf_loadgen", reason="the extra `bench` is not installed")

    async def fine(number: int) -> bytes:
        del number
        return http()

    with serve(fine) as server:
        carrier = Carrier(loadgen, server.url, [b"one", b"two"], 4)
        try:
            summary = run_scenario(loadgen, scenario, carrier, 2, 0.3, 100)
        finally:
            carrier.close()
    value, _, _ = read_summary(scenario, summary)
    assert value > 0
    assert carrier.failed == 0
    assert set(server.bodies) == {b"one", b"two"}
