"""A short run of the fuzzer of the gRPC port; ``python -m tests.security.grpc_fuzz`` is the long one."""

from __future__ import annotations

import pytest

from tests.security.grpc_fuzz import BETWEEN, fuzz

pytestmark = pytest.mark.reliability


def test_whatever_comes_is_answered_and_the_service_goes_on() -> None:
    found = fuzz(cases=15 * BETWEEN)
    print("".join(f"{answer}: {count}\n" for answer, count in sorted(found.answers.items())))
    assert not found.wrong, "\n".join(found.wrong[:10])
    assert found.answers["sound requests: OK"] == 15
    kinds = {answer.partition(":")[0] for answer in found.answers}
    assert kinds == {"messages", "frames", "sound requests"}
    assert found.answers["messages: OK"] > 50
    assert found.answers["messages: INVALID_ARGUMENT"] > 50
