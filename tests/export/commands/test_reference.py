"""``reference`` as one types it."""

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
    return CliRunner().invoke(program.cli, [str(word) for word in words])


def test_what_was_measured_and_published_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    colours.publish(store)
    images = uncertain.write(tmp_path / "photos", 200)
    result = run("reference", "colours", "--store", store, "--images", images)
    assert result.exit_code == 0, result.output
    found = {line[:13].strip(): line[13:] for line in result.stdout.splitlines()}
    reference = ModelStore(store).resolve("colours").manifest.reference
    assert reference
    assert found["model"] == "colours version 2"
    assert found["reference"] == "200 images of photos"
    most = colours.LABELS[reference.top_classes[0]]
    assert found["classes"].startswith(f"{most} {reference.classes[0] / 200:.1%}, ")
    assert found["embedding"].endswith(" dimensions")
    again = run("reference", "colours", "--store", store, "--images", images, "--json")
    published = json.loads(again.stdout)
    assert (published["model"], published["version"], published["folder"]) == ("colours", "3", f"{store}/colours/3")
    inspected = run("inspect", "colours", "--store", store)
    assert "200 images of photos" in inspected.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("colours",), "--images"),
        (("none", "--images", "absent.zip"), "no model 'none'"),
        (("colours", "--images", "absent.zip"), "neither a folder nor a zip"),
        (("colours", "--images", "few"), "few: 12 images; a reference needs at least 200"),
    ],
)
def test_refusals(words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colours.publish(tmp_path / "store")
    uncertain.write(tmp_path / "few", 12)
    result = run("reference", *words, "--store", tmp_path / "store")
    line = the_mistake(result)
    assert message in line
    assert ModelStore(tmp_path / "store").versions("colours") == ["1"]
