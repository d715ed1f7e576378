"""``draft`` as one types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export import __main__ as program
from export.draft import FEWEST
from model_store.store import ModelStore
from tests.export import colours
from tests.export.mistakes import the_mistake
from tests.export.test_draft import write_photos


def run(*words: object) -> Result:
    return CliRunner().invoke(program.cli, ["draft", *(str(word) for word in words)])


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A model in a store and large photos."""
    colours.publish(tmp_path / "store")
    photos = write_photos(tmp_path / "photos", FEWEST, (100, 70))
    return ["colours", "--store", tmp_path / "store", "--images", photos]


def test_what_was_measured_and_published_is_told(words: list[object], tmp_path: Path) -> None:
    result = run(*words, "--min-agreement", 90)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["images"] == f"{FEWEST} large JPEGs of photos"
    assert " ms whole, " in lines["decoding"]
    assert lines["fp32"].startswith("same top class on ")
    assert lines["model"] == "colours version 2"
    assert "RESNET_MODELS=colours@N" in lines["served"]
    scaling = ModelStore(tmp_path / "store").resolve("colours").manifest.preprocessing.jpeg_scaling
    assert scaling is not None
    assert (scaling.margin, scaling.gate.min_agreement) == (2, 0.9)


def test_as_json(words: list[object]) -> None:
    found = json.loads(run(*words, "--min-agreement", 90, "--json").stdout)
    assert (found["model"], found["version"]) == ("colours", "2")


def test_a_margin_that_is_too_large_for_the_photos(words: list[object], tmp_path: Path) -> None:
    result = run(*words, "--margin", 3)
    line = the_mistake(result)
    assert f"0 of {FEWEST} images are JPEGs large enough to be decoded smaller at margin 3" in line
    assert ModelStore(tmp_path / "store").versions("colours") == ["1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "model"),
        (("colours",), "--images"),
        (("none", "--images", "absent.zip"), "no model 'none'"),
        (("colours", "--images", "absent.zip"), "neither a folder nor a zip"),
        (("colours", "--images", "absent.zip", "--margin", "0.5"), "--margin"),
        (("colours", "--images", "absent.zip", "--min-agreement", "101"), "--min-agreement"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    colours.publish(tmp_path)
    result = run(*words, "--store", tmp_path)
    line = the_mistake(result)
    assert message.lower() in line.lower()
