"""Slow clients cost nothing, in short: what must hold on any machine, however busy. The figures: slow_clients.py."""

from __future__ import annotations

import asyncio

import pytest

from tests.end_to_end.conftest import running
from tests.reliability.slow_clients import allow_connections, measure

pytestmark = pytest.mark.reliability

EACH = 300  # more than RESNET_MAX_QUEUE together, so that a slow one that took a place in the queue would be seen


def test_good_images_are_answered_and_slow_connections_ended() -> None:
    allow_connections(EACH)
    times = {"RESNET_HEADER_TIMEOUT_S": "5", "RESNET_BODY_IDLE_S": "5", "RESNET_DEADLINE_S": "20"}
    with running(**times) as server:
        found = asyncio.run(measure(server.url, EACH, 50))
    assert found.refused == []
    assert found.ended == {"headers": {"408": EACH}, "body": {"408": EACH}}
    before, after = found.open_files
    assert after <= before + 5, "connections were not given back"
