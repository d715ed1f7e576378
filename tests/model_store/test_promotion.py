"""Which version stands for a model, and what happens when versions go."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.store import PROMOTED_FILE, ModelStore, StoreError

from .stores import entries, publish


def served(store: ModelStore) -> str:
    return store.resolve("tiny").manifest.version


def test_the_promoted_version_stands_for_the_model(store: ModelStore) -> None:
    assert store.promoted("tiny") is None
    assert store.promote("tiny", "2").manifest.version == "2"
    assert (store.promoted("tiny"), served(store)) == ("2", "2")
    assert store.resolve("tiny", "3").manifest.version == "3"


def test_a_version_published_later_does_not_take_over(store: ModelStore) -> None:
    store.promote("tiny", "1")
    publish(store, version="4")
    assert served(store) == "1"
    assert store.next_version("tiny") == "5"


def test_without_a_promotion_the_newest_is_served_again(store: ModelStore) -> None:
    store.promote("tiny", "1")
    assert store.promote("tiny", None).manifest.version == "3"
    assert store.promoted("tiny") is None
    store.promote("tiny", None)  # a second time changes nothing


def test_what_is_not_there_or_damaged_is_not_promoted(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="no version 7"):
        store.promote("tiny", "7")
    with pytest.raises(StoreError, match="no model 'other'"):
        store.promote("other", None)
    (store.root / "tiny" / "2" / "fp32.onnx").write_bytes(b"weighty")
    with pytest.raises(StoreError, match="SHA-256"):
        store.promote("tiny", "2")
    assert store.promoted("tiny") is None


@pytest.mark.parametrize("content", ["", "two", "0", "../1", "9"])
def test_a_damaged_promotion_is_an_error_and_not_another_version(store: ModelStore, content: str) -> None:
    (store.root / "tiny" / PROMOTED_FILE).write_text(content)
    with pytest.raises(StoreError):
        store.resolve("tiny")


def test_a_promotion_that_is_no_text_is_an_error(store: ModelStore) -> None:
    (store.root / "tiny" / PROMOTED_FILE).write_bytes(b"\xff")
    with pytest.raises(StoreError, match=PROMOTED_FILE):
        store.promoted("tiny")


def test_a_removed_version_is_gone_and_nothing_else(store: ModelStore) -> None:
    store.remove("tiny", "2")
    assert store.versions("tiny") == ["1", "3"]
    assert not [entry for entry in entries(store.root) if entry.startswith(("tiny/2", ".staging"))]
    with pytest.raises(StoreError, match="no version 2"):
        store.remove("tiny", "2")


def test_the_promoted_version_stays_while_others_are_there(store: ModelStore) -> None:
    store.promote("tiny", "1")
    with pytest.raises(StoreError, match="promote another version first"):
        store.remove("tiny", "1")
    store.remove("tiny", "2")
    store.remove("tiny", "3")
    store.remove("tiny", "1")
    assert entries(store.root) == []
    assert store.names() == []


def test_a_removal_that_is_cut_off_leaves_no_promotion_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path / "models")
    publish(store)
    store.promote("tiny", "1")
    replace = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name == "1":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.remove("tiny", "1")
    assert store.promoted("tiny") is None
    assert store.resolve("tiny").manifest.version == "1"


def test_removing_the_last_version_leaves_foreign_files(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    publish(store)
    (store.root / "tiny" / "notes.txt").write_text("mine")
    store.remove("tiny", "1")
    assert entries(store.root) == ["tiny", "tiny/notes.txt"]
