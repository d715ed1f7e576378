"""The short versions: what of each promise does not depend on the machine's speed."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from tests.reliability import broken_models, dead_worker, machine, restarts

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("program", [restarts, dead_worker, broken_models, machine])
def test_a_program_explains_itself(
    program: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program.__name__, "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
    assert f"python -m {program.__name__}" in capsys.readouterr().out


def test_nothing_accepted_is_lost_over_restarts() -> None:
    assert restarts.run(restarts=2, rate=20)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_comes_back(workers: int) -> None:
    assert dead_worker.run(kills=1, workers=workers, clients=4, back_limit_s=math.inf)


def test_a_worker_without_models_is_not_started_over_and_over() -> None:
    dead_worker.without_models()


def test_a_broken_model_never_serves() -> None:
    assert broken_models.run()


@pytest.mark.parametrize("name", machine.SCENARIOS)
def test_the_machine_can_fail_under_it(name: str) -> None:
    if reason := machine.why_not(name):
        pytest.skip(reason)
    assert machine.run(name)
