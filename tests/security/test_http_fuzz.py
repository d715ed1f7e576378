"""Malformed HTTP, in short; ``python -m tests.security.http_fuzz`` does more of the same."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.report import Report
from tests.reliability.harness import broken, serving
from tests.security.http_fuzz import TIMES, Case, Failure, fill, fuzz


def an_answer(status: int, line: bytes = b"x: y") -> bytes:
    return b"HTTP/1.1 %d X\r\n%s\r\ncontent-length: 2\r\n\r\n{}" % (status, line)


@pytest.mark.reliability
def test_nothing_that_comes_breaks_the_service() -> None:
    report = Report("security.http_fuzz", smoke=True)
    with serving(**TIMES) as server:
        found = fuzz(server, cases=3000, seed=1)
    fill(report, found)
    report.finish(None)
    assert found.failures == []
    assert broken(report) == []
    assert found.good
    counts = sum(found.statuses.values(), Counter())
    assert {"200", "400", "404", "408", "closed"} <= set(counts)


def whole_case() -> Case:
    return next(case for case in (Case(0, n) for n in range(1000)) if case.kind == "whole" and len(case.ids) > 1)


def test_the_fuzzer_sees_what_must_not_be() -> None:
    case = whole_case()
    first, second = (b"x-request-id: " + name.encode() for name in case.ids[:2])
    assert case.check(an_answer(200, first) + an_answer(404, second)) == [200, 404]
    for wrong, reason in (
        (an_answer(500), "status 500"),
        (an_answer(200, b"x-request-id: fuzz-999999-0"), "an answer for"),
        (an_answer(200, b"x-request-id: hidden"), "an answer for"),
        (an_answer(200, second) + an_answer(200, first), "out of their order"),
        (b"no answer\r\n\r\n", "no HTTP"),
    ):
        with pytest.raises(Failure, match=reason):
            case.check(wrong)


def test_two_answers_to_a_smuggling_shape_are_seen() -> None:
    case = next(case for case in (Case(0, n) for n in range(1000)) if case.kind == "smuggling")
    assert case.check(an_answer(400)) == [400]
    with pytest.raises(Failure, match="2 answers"):
        case.check(an_answer(400) * 2)


def test_a_case_is_the_same_again() -> None:
    for number in range(50):
        assert Case(3, number).pieces == Case(3, number).pieces
