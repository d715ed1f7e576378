from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client.errors import BadAnswer, ClientError, Refused, TimedOut, Unreachable
from service.client.retry import Retry, retry_after_s

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def overloaded(retry_after: float | None = None) -> Refused:
    error = Refused(429, "overloaded", "full")
    error.retry_after_s = retry_after
    return error


@pytest.mark.parametrize(
    "error", [overloaded(), Refused(503, "not_ready", ""), Refused(502, "http_502", ""), Unreachable(""), TimedOut("")]
)
def test_what_may_pass_is_tried_again(error: ClientError) -> None:
    assert Retry(1).pause_s(error, 1) is not None
    assert Retry(1).pause_s(error, 2) is None
    assert Retry(0).pause_s(error, 1) is None


@pytest.mark.parametrize("status", [400, 401, 404, 405, 408, 413, 415, 422, 500, 501, 504])
def test_other_refusals_are_final(status: int) -> None:
    assert Retry().pause_s(Refused(status, "some", ""), 1) is None


def test_a_wrong_answer_is_final() -> None:
    assert Retry().pause_s(BadAnswer(""), 1) is None


@given(st.integers(1, 10_000))
def test_pauses_double_up_to_a_bound_and_vary(failures: int) -> None:
    retry = Retry(10_000, first_pause_s=0.5, max_pause_s=30)
    pause = retry.pause_s(overloaded(), failures)
    assert pause is not None
    doubled = min(30.0, 0.5 * 2.0 ** min(failures - 1, 10))
    assert doubled / 2 <= pause <= doubled
    assert len({retry.pause_s(overloaded(), failures) for _ in range(10)}) > 1


def test_the_service_is_never_asked_before_it_says() -> None:
    pause = Retry().pause_s(overloaded(7), 1)
    assert pause is not None
    assert 7 < pause <= 7.5


def test_a_service_that_asks_for_too_long_is_not_waited_for() -> None:
    assert Retry(max_wait_s=60).pause_s(overloaded(61), 1) is None
    assert Retry(max_wait_s=60).pause_s(overloaded(60), 1) is not None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 12 ", 12),
        (format_datetime(NOW.replace(minute=1), usegmt=True), 60),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30),
        ("Sun Mar  1 12:00:05 2026", 5),
        (format_datetime(NOW.replace(hour=11), usegmt=True), 0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Sun, 01 Mar 99999 12:00:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW.timestamp()) == seconds


@given(st.text())
def test_no_header_is_too_odd(header: str) -> None:
    seconds = retry_after_s(header, NOW.timestamp())
    assert seconds is None or seconds >= 0
