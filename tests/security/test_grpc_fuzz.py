"""A short run of the fuzzer of the gRPC port; ``python -m tests.security.grpc_fuzz`` is the long one."""

from __future__ import annotations

import pytest

from benchmarks.report import Report
from benchmarks.server import free_port
from tests.reliability.harness import broken, serving
from tests.security.grpc_fuzz import BETWEEN, TIMES, fill, fuzz

pytestmark = pytest.mark.reliability


def test_whatever_comes_is_answered_and_the_service_goes_on() -> None:
    report, port = Report("security.grpc_fuzz", smoke=True), free_port()
    with serving(**TIMES, RESNET_GRPC_PORT=str(port)) as server:
        found = fuzz(server, port, cases=15 * BETWEEN)
    fill(report, found)
    report.finish(None)
    assert not found.wrong, "\n".join(found.wrong[:10])
    assert broken(report) == []
    assert found.answers["sound requests: OK"] == 15
    kinds = {answer.partition(":")[0] for answer in found.answers}
    assert kinds == {"messages", "frames", "sound requests"}
    assert found.answers["messages: OK"] > 50
    assert found.answers["messages: INVALID_ARGUMENT"] > 50
