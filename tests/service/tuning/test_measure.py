"""The real runtime on a tiny model; how long anything takes is not asked."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.store import ModelStore
from service.inference.session import Session
from service.models.loader import Loader
from service.tuning import measure as module
from service.tuning.candidates import Trial
from service.tuning.images import Images
from service.tuning.machine import key_here
from service.tuning.measure import Plan, Subject, figures, measure
from service.tuning.profile import Choice, Figures, save
from tests.service.conftest import a_png, some_settings
from tests.service.tuning.conftest import a_choice, a_profile, some_figures

PLAN = Plan(seconds=0.02, rounds=2, goal_ms=60_000)


@pytest.fixture
def subject(tiny_root: Path) -> Subject:
    stored = ModelStore(tiny_root).resolve("tiny")
    settings = some_settings(tiny_root, provider="auto", slots="auto")
    return Subject(stored, settings.model_copy(update={"inference": type(settings.inference)()}), 1, some_images())


def some_images() -> Images:
    return Images(tuple(a_png(i) for i in range(3)), "made up")


def measured(
    subject: Subject, *choices: Choice, plan: Plan = PLAN, loads: tuple[int, ...] = (1, 3)
) -> tuple[list[Trial], list[tuple[str, float]]]:
    told: list[tuple[str, float]] = []

    def tell(what: str, measured_s: float) -> None:
        told.append((what, measured_s))

    return asyncio.run(measure("slots", choices, subject, lambda _: loads, plan, tell)), told


def test_candidates_are_measured_in_turns(subject: Subject) -> None:
    choices = [a_choice(slots=1), a_choice(slots=2, decode_threads=1, max_batch=2)]
    trials, told = measured(subject, *choices)
    assert [trial.choice for trial in trials] == choices
    for trial in trials:
        assert [one.clients for one in trial.figures] == [1, 3]
        assert trial.failure is None
        assert all(one.p50_ms <= one.p99_ms for one in trial.figures)
    words = [what for what, _ in told if what]
    assert [what.split(":")[0] for what in words[2:]] == ["round 1 of 2"] * 2 + ["round 2 of 2"] * 2
    assert words[2].split(":")[1] != words[3].split(":")[1]
    assert sum(seconds for _, seconds in told) == pytest.approx(2 * 2 * 2 * PLAN.load_s)


def test_each_is_opened_once_and_nothing_is_left(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    real = Session.warm_up

    def counted(self: Session, max_batch: int) -> None:
        seen.append((self.slots, max_batch))
        real(self, max_batch)

    monkeypatch.setattr(Session, "warm_up", counted)
    measured(subject, a_choice(slots=1, max_batch=4), a_choice(slots=2, max_batch=3))
    assert seen == [(1, 4), (2, 3)]
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("slot", "decode"))]


def test_what_cannot_be_opened_says_why_and_the_others_go_on(subject: Subject) -> None:
    (bad, good), _ = measured(subject, a_choice(precision="int8"), a_choice())
    assert bad.figures == ()
    assert "no int8 variant" in (bad.failure or "")
    assert good.figures
    (gone,), _ = measured(subject, a_choice(provider="tensorrt"))
    assert "tensorrt: no NVIDIA " in (gone.failure or "")


def test_what_fails_while_it_runs_is_out(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session.run

    def failing(self: Session, *others: Any, **named: Any) -> Any:
        if self.slots == 2 and threading.current_thread().name.startswith("slot"):
            raise RuntimeError("the device fell off")
        return real(self, *others, **named)

    monkeypatch.setattr(Session, "run", failing)
    (bad, good), _ = measured(subject, a_choice(slots=2, max_batch=1), a_choice(slots=1, max_batch=1))
    assert bad.failure == "the model failed on this image"
    assert bad.figures == ()
    assert good.figures


def test_hopeless_loads_are_left_out(subject: Subject) -> None:
    """Half of one client's images missed the goal: more clients only wait longer."""
    (trial,), _ = measured(subject, a_choice(), plan=Plan(0.02, 2, goal_ms=1e-6))
    assert [one.clients for one in trial.figures] == [1]


def test_a_profile_that_is_there_has_no_say(tiny_root: Path, subject: Subject, tmp_path: Path) -> None:
    store = subject.settings.store.model_copy(update={"profiles": tmp_path})
    (tmp_path / "tiny").mkdir()
    save(tmp_path / "tiny", a_profile(key_here(subject.stored, 1, subject.settings), a_choice(slots=7)))
    seen: list[Any] = []
    real = Loader.open

    def spied(self: Loader, *args: Any) -> Any:
        opened = real(self, *args)
        seen.append((opened.tuned.settings.inference.slots, opened.tuned.profile))
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "open", spied)
        changed = subject.settings.model_copy(update={"store": store})
        measured(Subject(subject.stored, changed, 1, subject.images), a_choice(slots=3))
    assert seen == [(3, None)]


def test_rounds_that_differ_are_told(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Median figures, and by how much the rates differ; of one load 100, 50 and 110 images a second were seen."""
    rates = iter([100.0, 50.0, 110.0])

    async def seen(*_: Any) -> Figures:
        return some_figures(next(rates), 20, 1)

    monkeypatch.setattr(module, "drive", seen)
    (trial,), _ = measured(subject, a_choice(), plan=Plan(0.02, 3, 60_000), loads=(1,))
    assert trial.figures == (some_figures(100, 20, 1),)
    assert trial.unrest == pytest.approx(0.6)


# Figures of what was seen


def test_figures_of_a_window() -> None:
    """100 images, one every 10 ms, each 25 ms after it was sent; the window is from 0.2 to 0.7 s."""
    answers = [(0.01 * i, 0.01 * i + 0.025) for i in range(100)]
    found = figures(answers, 2, 0.2, 0.7)
    assert found.images_per_second == pytest.approx(100)
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(25), pytest.approx(25))
    assert found.clients == 2


def test_percentiles_are_latencies_that_were_seen() -> None:
    answers = [(1.0, 1.0 + 0.001 * (i + 1)) for i in range(100)]
    found = figures(answers, 100, 0.5, 1.5)
    assert found.p50_ms == pytest.approx(50)
    assert found.p99_ms == pytest.approx(99)


def test_warming_up_does_not_count() -> None:
    slow = [(0.0, 0.9)]
    answers = slow + [(1.0 + 0.1 * i, 1.05 + 0.1 * i) for i in range(10)]
    found = figures(answers, 1, 1.0, 2.0)
    assert found.p99_ms == pytest.approx(50)
    assert found.images_per_second == pytest.approx(10)


@pytest.mark.parametrize("answers", [[(0.0, 5.0), (0.0, 5.0)], [(0.0, 0.5), (0.0, 5.0)]])
def test_images_slower_than_the_window_still_have_figures(answers: list[tuple[float, float]]) -> None:
    found = figures(answers, 2, 0.2, 1.2)
    assert found.images_per_second == pytest.approx(2 / 5)
    assert found.p99_ms == pytest.approx(5000)
