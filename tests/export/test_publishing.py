"""The next version is what was there and what is new, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from export.publishing import publish_next
from model_store.store import LABELS_FILE, ModelStore, StoreError
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from tests.export import colours


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return colours.publish(tmp_path)


def test_without_changes_it_is_the_same_under_the_next_number(stored: StoredModel, tmp_path: Path) -> None:
    published = publish_next(ModelStore(tmp_path), stored, lambda _: {})
    published.verify()
    same = {"version", "created"}
    assert published.manifest.model_dump(exclude=same) == stored.manifest.model_dump(exclude=same)
    assert published.manifest.version == "2"
    assert published.manifest.created > stored.manifest.created
    assert (published.folder / "README.md").read_text().startswith("# colours, version 2\n")


def test_a_new_file_takes_the_place_of_one_of_its_name(stored: StoredModel, tmp_path: Path) -> None:
    def make(staged: Path) -> dict[str, Any]:
        assert list(staged.iterdir()) == []
        (staged / LABELS_FILE).write_text("".join(f"{label.upper()}\n" for label in colours.LABELS))
        return {"labels": describe_file(staged / LABELS_FILE)}

    published = publish_next(ModelStore(tmp_path), stored, make)
    published.verify()
    assert published.labels()[0] == "ANT"
    assert stored.labels()[0] == "ant"
    assert published.manifest.variants == stored.manifest.variants


def test_it_comes_after_the_newest_whatever_it_is_made_from(stored: StoredModel, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in ("2", "3"):
        assert publish_next(store, stored, lambda _: {}).manifest.version == version


def test_a_version_without_a_card_gets_one(stored: StoredModel, tmp_path: Path) -> None:
    (stored.folder / "README.md").unlink()
    published = publish_next(ModelStore(tmp_path), stored, lambda _: {})
    assert "Data: not stated" in (published.folder / "README.md").read_text()


@pytest.mark.parametrize(("changes", "error"), [({"variants": []}, ValidationError), ({"opset": 0}, ValidationError)])
def test_a_wrong_change_publishes_nothing(
    stored: StoredModel, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        publish_next(ModelStore(tmp_path), stored, lambda _: changes)
    assert ModelStore(tmp_path).versions("colours") == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]


def test_a_file_that_differs_from_its_hash_publishes_nothing(stored: StoredModel, tmp_path: Path) -> None:
    (stored.folder / LABELS_FILE).write_text("x\n" * 7)
    with pytest.raises(StoreError, match=LABELS_FILE):
        publish_next(ModelStore(tmp_path), stored, lambda _: {})
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]
