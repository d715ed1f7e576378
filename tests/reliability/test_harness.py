"""How a program here ends, and what it may be told."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.report import Report, Target
from tests.reliability.harness import broken, conclude, program


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


@pytest.mark.parametrize("wrong", ["RESNET_SLOTS", "SLOTS=1"])
def test_settings_are_named_and_set(wrong: str) -> None:
    given: list[dict[str, str]] = []

    def run(settings: dict[str, str]) -> Report:
        given.append(settings)
        return report(1.0)

    command = program(run)
    right = ["--set", "RESNET_SLOTS=1", "--set", "RESNET_MODELS=a=b"]
    assert CliRunner().invoke(command, right).exit_code == 0
    assert given == [{"RESNET_SLOTS": "1", "RESNET_MODELS": "a=b"}]
    refused = CliRunner().invoke(command, ["--set", wrong])
    assert refused.exit_code == 2
    assert f"{wrong}: write RESNET_NAME=VALUE" in refused.output
