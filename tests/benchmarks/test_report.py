"""Figures, spreads, targets, and the file they are written to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.report import Report, Target, common_options, figure, median, ratios, shorten, spread


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1234"),
        (99.94, "99.9"),
        (12.34, "12.3"),
        (0.456, "0.46"),
        (0.00123, "0.0012"),
        (0, "0"),
        (math.nan, "-"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_spreads() -> None:
    assert spread([3, 1, 2]) == "2.00 (1.00 to 3.00)"
    assert spread([3]) == "3.00"
    assert spread([]) == "-"
    assert math.isnan(median([]))


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([10, 30], [5, 10]) == [2, 3]
    assert math.isnan(ratios([1], [0])[0])
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [
        (0.96, True, True),
        (0.9599, True, False),
        (0.96, False, True),
        (0.9601, False, False),
        (None, True, None),
        (math.nan, True, None),
    ],
)
def test_a_target_is_met_at_its_limit(measured: float | None, at_least: bool, met: bool | None) -> None:
    assert Target("t", measured, 0.96, at_least).met is met


def test_a_target_says_what_was_wanted() -> None:
    assert Target("t", 12.0, 50, False, "ms").cells() == ["t", "12.0 ms", "at most 50 ms", "yes"]
    assert Target("t", None, 2, True, note="one core").cells() == ["t", "not measured (one core)", "at least 2", "-"]


def test_a_report_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("some", smoke=True, machine={"processor": "a CPU"}, subject={"model": "m"})
    report.table("Title", ["what", "figure"], [["this", "1"]])
    report.hold([Target("t", 1.0, 2, True)])
    report.notes.append("A note [with brackets].")
    report.finish(tmp_path / "deep" / "some.json")
    printed = capsys.readouterr().out
    for text in ("SMOKE RUN", "a CPU", "Title", "at least 2", "A note [with brackets]."):
        assert text in printed
    written = json.loads((tmp_path / "deep" / "some.json").read_text())
    assert written["smoke"] is True
    assert written["tables"] == [{"title": "Title", "head": ["what", "figure"], "rows": [["this", "1"]]}]
    assert written["targets"][0]["met"] is False
    assert written["machine"]["load after"]


def test_smoke_is_short() -> None:
    parser = common_options("some", "What it does.")
    assert shorten(parser.parse_args(["--smoke"])).rounds == 1
    options = shorten(parser.parse_args(["--seconds", "9", "--rounds", "7"]))
    assert (options.seconds, options.rounds) == (9, 7)
