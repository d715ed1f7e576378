"""What a run was about, lane by lane: how many tests passed, failed and were skipped, and the seconds they took.

A test marked ``slow(first=True)`` is so long that it begins before all others, or the last worker would wait for it.
"""

from __future__ import annotations

import fnmatch
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

import pytest

_BY_PATH: Final = (
    ("container", "tests/container/*"),
    ("reliability", "tests/reliability/*"),
    ("security", "tests/security/*"),
    ("browser", "tests/end_to_end/test_*page*.py"),
    ("documents", "tests/end_to_end/test_*document*.py"),
    ("documents", "tests/deploy/*"),
    ("end to end", "tests/end_to_end/*"),
    ("benchmarks", "tests/benchmarks/*"),
    ("gpu", "tests/gpu/*"),
)
_ORDER: Final = (
    "unit", "end to end", "shared data", "security", "browser", "documents", "benchmarks", "gpu", "reliability",
    "container",
)  # fmt: skip

_FEW: Final = 100
"""Tests of which one needs no summary."""


def lane(path: str, fixtures: Iterable[str]) -> str:
    """The lane of a test of file ``path`` that takes ``fixtures``."""
    by_path = next((name for name, pattern in _BY_PATH if fnmatch.fnmatch(path, pattern)), "unit")
    return "shared data" if "shared" in fixtures and by_path in ("unit", "end to end", "security") else by_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        found = lane(item.nodeid.partition("::")[0], getattr(item, "fixturenames", ()))
        item.user_properties.append(("lane", found))  # which comes with the report, from whichever process
    items.sort(key=lambda item: not any(mark.kwargs.get("first") for mark in item.iter_markers("slow")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            name = dict(report.user_properties).get("lane") if isinstance(report, pytest.TestReport) else None
            if isinstance(name, str):
                counts[name][outcome] += 1
                seconds[name] += report.duration
    if sum(map(Counter.total, counts.values())) < _FEW:
        return
    terminalreporter.section("lanes")
    for name in sorted(counts, key=_ORDER.index):
        found = ", ".join(f"{count} {outcome}" for outcome, count in counts[name].items())
        terminalreporter.line(f"{name:<12} {found}; {seconds[name]:.0f} s of tests")
