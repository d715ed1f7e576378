"""No link leads out of the store: not of a model, a version, a manifest, labels or an alias."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_store.manifest import MANIFEST_FILE
from model_store.plain_files import read_plain
from model_store.store import LABELS_FILE, ModelStore, StoreError
from tests.model_store.stores import publish

SECRET = "the canary sings"  # noqa: S105 - what must not be read


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """With one model, beside another store and a file that are none of its business."""
    publish(ModelStore(tmp_path / "outside"), "tiny")
    (tmp_path / "secret").write_text(SECRET)
    store = ModelStore(tmp_path / "models")
    publish(store, "own")
    return store


def refusal(use: object, *arguments: object) -> str:
    with pytest.raises(StoreError) as caught:
        use(*arguments)  # type: ignore[operator]
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_a_model_that_is_a_link_out_is_not_there(store: ModelStore) -> None:
    (store.root / "tiny").symlink_to(store.root.parent / "outside" / "tiny")
    assert store.names() == ["own"]
    assert store.versions("tiny") == []
    (store.root.parent / "outside" / "tiny" / "PROMOTED").write_text(SECRET)
    assert store.promoted("tiny") is None
    assert store.aliases("tiny") == {}
    assert "no model 'tiny'" in refusal(store.resolve, "tiny")


def test_a_version_that_is_a_link_out_is_not_there(store: ModelStore) -> None:
    (store.root / "own" / "2").symlink_to(store.root.parent / "outside" / "tiny" / "1")
    assert store.versions("own") == ["1"]
    refusal(store.resolve, "own", "2")


def test_a_link_within_the_store_is_followed(store: ModelStore) -> None:
    (store.root / "own" / "2").symlink_to(store.root / "own" / "1")
    assert store.versions("own") == ["1", "2"]


def test_the_store_itself_may_be_a_link(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(store.root)
    assert ModelStore(tmp_path / "current").resolve("own").manifest.version == "1"


@pytest.mark.parametrize("alias", ["stable", "canary"])
def test_an_alias_is_not_read_through_a_link(store: ModelStore, alias: str) -> None:
    store.set_alias("own", "canary", "1")
    path = store.root / "own" / ("PROMOTED" if alias == "stable" else "aliases/canary")
    path.unlink(missing_ok=True)
    path.symlink_to(store.root.parent / "secret")
    assert "cannot be read" in refusal(store.promoted if alias == "stable" else store.aliases, "own")


def test_a_folder_of_aliases_elsewhere_is_neither_read_nor_written(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "canary").write_text("1\n")
    (store.root / "own" / "aliases").symlink_to(tmp_path / "elsewhere")
    refusal(store.aliases, "own")
    with pytest.raises(OSError, match="a link"):
        store.set_alias("own", "blue", "1")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["canary"]


@pytest.mark.parametrize("name", [MANIFEST_FILE, LABELS_FILE])
def test_a_file_of_a_version_is_not_read_through_a_link(store: ModelStore, name: str) -> None:
    path = store.root / "own" / "1" / name
    path.unlink()
    path.symlink_to(store.root.parent / "secret")
    refusal(lambda: store.resolve("own").labels())


@pytest.mark.parametrize("name", ["PROMOTED", "1/labels.txt"])
def test_a_pipe_is_not_waited_for(store: ModelStore, name: str) -> None:
    path = store.root / "own" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert "not a plain file" in refusal(lambda: store.resolve("own").labels())


def test_an_alias_is_no_long_read(store: ModelStore) -> None:
    with (store.root / "own" / "PROMOTED").open("wb") as file:
        file.truncate(2**40)
    assert "longer than 64 bytes" in refusal(store.promoted, "own")


def test_a_plain_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4"):
        read_plain(path, 4)
