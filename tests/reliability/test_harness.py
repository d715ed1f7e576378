"""How a program here ends, and what it may be told."""

from __future__ import annotations

import click
import pytest

from benchmarks.report import Report, Target
from tests.reliability.harness import broken, conclude, settings_of


def report(*measured: float | None) -> Report:
    made = Report("reliability.none")
    made.hold([Target(f"promise {number}", value, 1, at_least=True) for number, value in enumerate(measured)])
    return made


@pytest.mark.parametrize(
    ("measured", "status"), [((1.0, 2.0), 0), ((1.0, 0.5), 1), ((1.0, None), 1), ((float("nan"),), 1)]
)
def test_the_status_tells_whether_all_was_kept(
    measured: tuple[float | None, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        conclude(report(*measured))
    assert ended.value.code == status
    assert "promise 0" in capsys.readouterr().out


def test_what_is_broken_is_named() -> None:
    assert broken(report(1.0, 0.5, None)) == ["promise 1", "promise 2"]


def test_settings_are_named_and_set() -> None:
    assert settings_of(("RESNET_SLOTS=1", "RESNET_MODELS=a=b")) == {"RESNET_SLOTS": "1", "RESNET_MODELS": "a=b"}
    for wrong in ("RESNET_SLOTS", "SLOTS=1"):
        with pytest.raises(click.BadParameter, match="RESNET_NAME=VALUE"):
            settings_of((wrong,))
