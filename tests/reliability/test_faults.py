"""The short versions: what of each promise does not depend on the machine's speed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.report import Report
from model_store.store import EMBEDDED_MODELS
from tests.reliability import broken_models, dead_worker, machine, restarts
from tests.reliability.harness import broken, serving

pytestmark = pytest.mark.reliability


def test_nothing_accepted_is_lost_over_restarts() -> None:
    report = Report("reliability.restarts", smoke=True)
    rolled = restarts.measure(report, {"RESNET_DRAIN_S": "1"}, restarts=2, load=0.7, rate=20)
    restarts.fill(report, rolled)
    report.finish(None)
    assert broken(report) == []
    assert len(rolled.stops) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_comes_back(workers: int) -> None:
    report = Report("reliability.dead_worker", smoke=True)
    with serving(**dead_worker.IN_CONTAINER, RESNET_WORKERS=str(workers)) as server:
        found = dead_worker.measure(server, kills=1, workers=workers, clients=4)
    dead_worker.fill(report, found)
    report.finish(None)
    assert set(broken(report)) <= {dead_worker.BACK}


def test_a_worker_without_models_is_not_started_over_and_over(tmp_path: Path) -> None:
    store = tmp_path / "models"
    shutil.copytree(EMBEDDED_MODELS, store)
    with serving(**dead_worker.IN_CONTAINER, RESNET_MODEL_STORE=str(store)) as server:
        dead_worker.without_models(server, store)


def test_a_broken_model_never_serves() -> None:
    report = Report("reliability.broken_models", smoke=True)
    broken_models.fill(report, broken_models.measure(report, {}))
    report.finish(None)
    assert broken(report) == []


@pytest.mark.parametrize("name", machine.SCENARIOS)
def test_the_machine_can_fail_under_it(name: str) -> None:
    if reason := machine.why_not(name):
        pytest.skip(reason)
    report = Report("reliability.machine", smoke=True)
    machine.run(report, name, {})
    report.finish(None)
    assert broken(report) == []
