"""``calibrate`` as one types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export import __main__ as program
from model_store.store import ModelStore
from tests.export import colours, uncertain
from tests.export.mistakes import the_mistake


def run(*words: object) -> Result:
    return CliRunner().invoke(program.cli, ["calibrate", *(str(word) for word in words)])


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A model in a store and labelled images that it is sometimes wrong on."""
    colours.publish(tmp_path / "store")
    images = uncertain.write(tmp_path / "test", 200)
    return ["colours", "--store", tmp_path / "store", "--images", images]


def lines(text: str) -> dict[str, str]:
    return {line[:13].strip(): line[13:] for line in text.splitlines()}


def test_what_was_measured_and_published_is_told(words: list[object], tmp_path: Path) -> None:
    result = run(*words)
    assert result.exit_code == 0, result.output
    found = lines(result.stdout)
    calibration = ModelStore(tmp_path / "store").resolve("colours").manifest.calibration
    assert calibration
    assert found["model"] == "colours version 2"
    assert found["temperature"] == f"{calibration.temperature:.4f}, of {calibration.images} images of test"
    assert found["measured on"].startswith(f"{calibration.held_out} others, accuracy ")
    errors = f"{calibration.error_before:.2%} before, {calibration.error_after:.2%} after"
    assert found["fp32"] == f"calibration error {errors} (cpu)"
    assert found["energy"].startswith(f"at least {calibration.energy:.3f}: reached by 9")
    assert found["max logit"].startswith(f"at least {calibration.max_logit:.3f}: ")
    assert "AUROC" not in result.stdout
    assert Path(found["report"]).is_file()
    assert "note: with " in result.stderr


def test_as_json(words: list[object]) -> None:
    found = json.loads(run(*words, "--json").stdout)
    assert (found["model"], found["version"], found["classes"]) == ("colours", "2", len(colours.LABELS))


def test_outliers_and_coverage(words: list[object], tmp_path: Path) -> None:
    outliers = colours.write(tmp_path / "others", labels=False)
    result = run(*words, "--outliers", outliers, "--coverage", 50)
    assert result.exit_code == 0, result.output
    found = lines(result.stdout)
    for score in ("energy", "max logit"):
        assert "% of the outliers, AUROC 0." in found[score]
    calibration = ModelStore(tmp_path / "store").resolve("colours").manifest.calibration
    assert calibration
    assert calibration.coverage == 0.5


def test_a_refusal_is_one_line_and_publishes_nothing(words: list[object], tmp_path: Path) -> None:
    right = uncertain.write(tmp_path / "right", 100, temperature=1e-6)
    result = run(*words[:-1], right)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: the temperature would be at its lowest bound")
    assert ModelStore(tmp_path / "store").versions("colours") == ["1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "model"),
        (("colours",), "--images"),
        (("none", "--images", "absent.zip"), "no model 'none'"),
        (("colours@7", "--images", "absent.zip"), "no version 7"),
        (("colours", "--images", "absent.zip"), "neither a folder nor a zip"),
        (("colours", "--images", "absent.zip", "--coverage", "0"), "--coverage"),
        (("colours", "--images", "absent.zip", "--coverage", "101"), "--coverage"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    colours.publish(tmp_path)
    result = run(*words, "--store", tmp_path)
    line = the_mistake(result)
    assert message.lower() in line.lower()


def test_help_has_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "python -m export calibrate mine --images test.zip --outliers photos.zip" in result.stdout
