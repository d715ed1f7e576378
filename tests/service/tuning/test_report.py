from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from service.tuning.candidates import SPREAD
from service.tuning.images import TuneError
from service.tuning.report import check_plot, failures, picture, table, text_plot
from service.tuning.search import Outcome
from tests.service.tuning.conftest import a_choice, a_trial, some_figures

GOAL_MS = 50.0


@pytest.fixture
def outcome() -> Outcome:
    """One slot is best, without spreading; openvino fails."""
    trials = (
        a_trial(some_figures(100, 20), some_figures(140, 60, 8), stage="provider"),
        a_trial(stage="provider", provider="openvino", precision="int8"),
        a_trial(some_figures(150, 30), some_figures(180, 45, 8), stage="slots", slots=1),
        a_trial(some_figures(30, 90), stage="slots", slots=4),
        a_trial(some_figures(80, 12, 1), stage=SPREAD, slots=1, spread_lone_image=False),
        a_trial(some_figures(80, 12, 1), stage=SPREAD, slots=1, spread_lone_image=True),
    )
    choice = a_choice(slots=1, spread_lone_image=False)
    return Outcome(trials, ("cuda: no NVIDIA driver",), choice, some_figures(180, 45, 8), some_figures(100, 20))


def shown(outcome: Outcome, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())

    console.print(table(outcome, GOAL_MS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def words(line: str) -> str:
    return " ".join(line.split())


def test_a_row_a_candidate_with_its_best_load(outcome: Outcome) -> None:
    head, *rows = shown(outcome)
    assert words(head) == "varied runs on slots batch decode spread load images/s p50 ms p99 ms"
    assert [words(row) for row in rows if row.strip()] == [
        "provider cpu fp32 2 8 0 yes 4 100.0 10.0 20.0",
        "openvino int8 2 8 0 yes failed",
        "* slots cpu fp32 1 8 0 yes 8 180.0 22.5 45.0",
        "cpu fp32 4 8 0 yes 4 30.0 45.0 >90.0",
        "* spread cpu fp32 1 8 0 no 1 80.0 6.0 12.0",
        "cpu fp32 1 8 0 yes 1 80.0 6.0 12.0",
    ]


def test_an_ordinary_terminal_shows_it_whole(outcome: Outcome) -> None:
    wide = a_trial(some_figures(12345.6, 1234.5, 256), stage="decode_threads", provider="openvino", decode_threads=64)
    lines = shown(Outcome((*outcome.trials, wide), (), outcome.choice, outcome.figures, None))
    assert not any("…" in line for line in lines)


def test_what_failed_says_why(outcome: Outcome) -> None:
    assert list(failures(outcome)) == [
        "not measured: cuda: no NVIDIA driver",
        "failed: openvino int8: it would not start",
    ]


def test_the_text_plot(outcome: Outcome) -> None:
    title, *rows, foot = text_plot(outcome, GOAL_MS).splitlines()
    assert "*: chosen" in title
    assert rows[0].startswith("    184 +")
    assert foot.endswith("92 ms")
    assert sum(row.count("*") for row in rows) == 2
    assert sum(row.count(".") for row in rows) == 3, "the lone image's loads are no throughput"
    goal = {row.rstrip("*. ").rfind("|") for row in rows if row.count("|") == 2}
    assert len(goal) == 1
    best, column = next((n, row.index("*")) for n, row in enumerate(rows) if "*" in row)
    assert best == 0
    assert column < goal.pop()


def test_a_plot_of_next_to_nothing() -> None:
    trial = a_trial(some_figures(0.01, 9e6))
    lines = text_plot(Outcome((trial,), (), trial.choice, trial.figures[0], None), 1.0).splitlines()
    assert sum(line.count("*") for line in lines[1:]) == 1
    assert all(len(line) < 80 for line in lines)


@pytest.mark.parametrize("name", ["plot.png", "plot.PNG"])
def test_a_picture(outcome: Outcome, tmp_path: Path, name: str) -> None:
    check_plot(tmp_path / name)
    picture(tmp_path / name, outcome, GOAL_MS)
    with Image.open(tmp_path / name) as image:
        assert image.format == "PNG"
        assert image.width > 300


@pytest.mark.parametrize("name", ["plot.txt", "plot", "missing/plot.png"])
def test_a_picture_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(TuneError, match="--plot must name a file"):
        check_plot(tmp_path / name)


def test_a_picture_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TuneError, match="make install-dev"):
        check_plot(tmp_path / "plot.png")
