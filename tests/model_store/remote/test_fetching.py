"""Versions come into the mirror whole, once, and as their manifests say, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.locations import StoreUnreachable
from model_store.manifest import MANIFEST_FILE
from model_store.remote import FETCHING_PREFIX, RemoteStore
from model_store.store import ModelStore, StoreError
from tests.model_store.flaky import URL, FlakyFileSystem
from tests.model_store.stores import publish

from .conftest import ROOT, a_store, left_over, put


def test_a_fetch_goes_on_where_it_broke_off(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    published = publish(store)
    manifest_bytes = (published.folder / MANIFEST_FILE).stat().st_size
    files.read.clear()
    files.left = manifest_bytes + 7 + 40  # the weights, and half of the labels
    with pytest.raises(StoreUnreachable, match="the line is cut"):
        other.resolve("tiny")
    assert ModelStore(other.root).names() == [], "nobody sees a half"
    files.left = float("inf")
    a_store(other.root.parent).resolve("tiny").verify()
    fetched = [(path, start) for path, start, _ in files.read if not path.endswith(MANIFEST_FILE)]
    assert len(fetched) == len(set(fetched)), "nothing came twice"
    assert sum(size for path, _, size in files.read if path.endswith("labels.txt")) == 80
    assert left_over(other) == []


class _Refused(Exception):
    """As gcsfs (``code``) and Azure's library (``status_code``) have it; no ``OSError``."""

    def __init__(self, attribute: str) -> None:
        super().__init__("the range cannot be satisfied")
        setattr(self, attribute, 416)


@pytest.mark.parametrize("attribute", ["code", "status_code", "status"])
def test_a_range_behind_the_end_may_be_refused_in_any_way(
    files: type[FlakyFileSystem],
    store: RemoteStore,
    other: RemoteStore,
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
) -> None:
    publish(store)
    put(files, "tiny/PROMOTED", b"")
    original = files.cat_file

    def strict(self: FlakyFileSystem, path: str, start: int = 0, end: int | None = None, **options: Any) -> bytes:
        if start >= self.size(path):
            raise _Refused(attribute)
        return original(self, path, start, end, **options)

    monkeypatch.setattr(files, "cat_file", strict)
    other.index()
    other.fetch("tiny", "1")
    assert (other.root / "tiny" / "1" / MANIFEST_FILE).exists()


def test_what_is_in_the_mirror_is_not_fetched_again(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    other.resolve("tiny")
    files.read.clear()
    other.index()
    other.resolve("tiny")
    assert files.read == []
    a_store(other.root.parent).resolve("tiny")
    assert {path for path, _, _ in files.read} == {f"{ROOT}/tiny/1/{MANIFEST_FILE}"}


def test_a_damaged_mirror_is_made_good(store: RemoteStore, other: RemoteStore, tmp_path: Path) -> None:
    publish(store)
    (other.resolve("tiny").folder / "fp32.onnx").write_bytes(b"WEIGHTS")
    a_store(tmp_path / "there").resolve("tiny").verify()


def test_a_number_that_is_published_anew_is_fetched_anew(store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    before = other.resolve("tiny").manifest
    store.index()
    store.remove("tiny", "1")
    again = publish(store, labels=b"".join(b"other %d\n" % i for i in range(10))).manifest
    other.index()
    found = other.resolve("tiny")
    found.verify()
    assert found.manifest == again != before


def change(files: type[FlakyFileSystem], **fields: Any) -> None:
    manifest = json.loads(files(use_listings_cache=False).cat_file(f"{ROOT}/tiny/1/{MANIFEST_FILE}"))
    put(files, f"tiny/1/{MANIFEST_FILE}", json.dumps(manifest | fields).encode())


def test_bytes_that_are_not_the_manifests_are_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    for wrong, message in ((b"WEIGHTS", "SHA-256"), (b"wei", "3 bytes, the manifest says 7")):
        put(files, "tiny/1/fp32.onnx", wrong)
        with pytest.raises(StoreError, match=message):
            other.resolve("tiny")
        assert not (other.root / "tiny").exists()
        assert left_over(other) == []
    put(files, "tiny/1/fp32.onnx", b"weights and more than that")
    other.resolve("tiny").verify()  # what is beyond the manifest's size is not asked for


def test_a_missing_file_is_told(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    del files.store[f"{ROOT}/tiny/1/fp32.onnx"]
    with pytest.raises(StoreError, match=rf"{URL}/tiny/1/fp32.onnx: there is no such file"):
        other.resolve("tiny")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "another"}, "the manifest is of another version 1"),
        ({"version": "7"}, "the manifest is of tiny version 7"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_is_another_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, fields: dict[str, Any], message: str
) -> None:
    publish(store)
    change(files, **fields)
    with pytest.raises(StoreError, match=message):
        other.resolve("tiny")
    assert left_over(other) == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a/b", ".hidden", "nul\0"])
def test_a_file_that_would_lie_elsewhere_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, name: str
) -> None:
    labels = publish(store).manifest.labels.model_dump()
    change(files, labels={**labels, "file": name})
    with pytest.raises(StoreError, match="is not a plain file name"):
        other.resolve("tiny")


def test_a_manifest_that_is_too_large_is_refused(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    monkeypatch.setattr("model_store.remote.MAX_MANIFEST_BYTES", 100)
    files.read.clear()
    with pytest.raises(StoreError, match="larger than 100 bytes"):
        other.resolve("tiny")
    assert sum(size for _, _, size in files.read) == 101, "no more than that was read"


def test_a_full_disk_keeps_no_part(store: RemoteStore, other: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model_store.remote.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.resolve("tiny")
    assert left_over(other) == []


def test_what_breaks_off_of_one_model_is_not_anothers(store: RemoteStore, other: RemoteStore) -> None:
    publish(store, "tiny")
    publish(store, "tiny-er", "2")
    half = other.root / f"{FETCHING_PREFIX}tiny-er-2"
    gone = other.root / f"{FETCHING_PREFIX}tiny-2"
    for folder in (half, gone):
        folder.mkdir(parents=True)
    other.resolve("tiny")
    other.follow("tiny")
    assert (half.exists(), gone.exists()) == (True, False)


def test_a_version_that_comes_back_is_fetched_again(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    other.resolve("tiny")
    path = f"{ROOT}/tiny/1/{MANIFEST_FILE}"
    manifest = files.store.pop(path)
    other.index()
    other.follow("tiny")
    assert not (other.root / "tiny").exists()
    files.store[path] = manifest
    other.index()
    other.fetch("tiny", "1")
    assert (other.root / "tiny" / "1" / MANIFEST_FILE).exists()


def test_the_mirrors_own_folders_are_no_models(store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    other.resolve("tiny")
    (other.root / f"{FETCHING_PREFIX}tiny-2" / "1").mkdir(parents=True)
    (other.root / f"{FETCHING_PREFIX}tiny-2" / "1" / MANIFEST_FILE).write_text("{}")
    assert ModelStore(other.root).names() == ["tiny"]


def test_a_mirror_that_cannot_be_written_is_told(store: RemoteStore, tmp_path: Path) -> None:
    publish(store)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="fetched models cannot be kept here"):
        a_store(tmp_path / "file").resolve("tiny")
