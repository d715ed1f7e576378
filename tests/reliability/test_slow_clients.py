"""Slow clients cost nothing, in short: what must hold on any machine, however busy. The figures: slow_clients.py."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.report import Report
from tests.reliability.harness import broken, serving
from tests.reliability.slow_clients import RATIO, allow_connections, fill, measure

pytestmark = pytest.mark.reliability

EACH = 300  # more than RESNET_MAX_QUEUE together, so that a slow one that took a place in the queue would be seen


def test_good_images_are_answered_and_slow_connections_ended() -> None:
    allow_connections(EACH)
    times = {"RESNET_HEADER_TIMEOUT_S": "5", "RESNET_BODY_IDLE_S": "5", "RESNET_DEADLINE_S": "10"}
    report = Report("reliability.slow_clients", smoke=True)
    with serving(**times) as server:
        found = asyncio.run(measure(server, EACH, 50))
    fill(report, found)
    report.finish(None)
    assert set(broken(report)) <= {RATIO}
    assert found.refused == []
    assert found.ended == {"headers": {"408": EACH}, "body": {"408": EACH}}
