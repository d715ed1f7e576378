"""A store at a URL is as one in a folder, for all who publish there and look into it."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.locations import StoreUnreachable
from model_store.manifest import MANIFEST_FILE
from model_store.remote import CLAIM_FILE, RemoteStore
from model_store.store import ModelStore, StoreError
from tests.model_store.flaky import URL, FlakyFileSystem
from tests.model_store.stores import publish, stage

from .conftest import ROOT, VERSION_1, left_over, paths, put

# As in a folder


def test_what_is_published_is_found_from_elsewhere(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    published = publish(store)
    assert published.folder == store.root / "tiny" / "1"
    assert paths(files) == VERSION_1
    found = other.resolve("tiny")
    assert (found.folder, found.manifest) == (other.root / "tiny" / "1", published.manifest)
    found.verify()
    assert (store.names(), store.versions("tiny"), store.next_version("tiny")) == (["tiny"], ["1"], "2")
    assert left_over(store) == left_over(other) == []


def test_the_manifest_comes_last(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    publish(store)
    assert files.written[0] == f"{ROOT}/tiny/1/{CLAIM_FILE}"
    assert files.written[-1] == f"{ROOT}/tiny/1/{MANIFEST_FILE}"


def test_promotion_and_aliases(store: RemoteStore, other: RemoteStore) -> None:
    for version in ("1", "2", "3"):
        publish(store, version=version)
    assert store.promote("tiny", "1").manifest.version == "1"
    store.set_alias("tiny", "canary", "2")
    other.index()
    assert (other.promoted("tiny"), other.aliases("tiny")) == ("1", {"canary": "2"})
    assert other.resolve("tiny").manifest.version == "1"
    assert other.find("tiny@canary").manifest.version == "2"
    with pytest.raises(StoreError, match="version 1 is promoted"):
        other.remove("tiny", "1")
    with pytest.raises(StoreError, match="is its canary"):
        other.remove("tiny", "2")
    other.set_alias("tiny", "canary", None)
    assert other.promote("tiny", None).manifest.version == "3"
    store.index()
    assert (store.promoted("tiny"), store.aliases("tiny")) == (None, {})


def test_an_alias_that_is_none_is_its_own_models_mistake(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    publish(store)
    publish(store, name="other")
    put(files, "other/PROMOTED", b"1 (since the last release, as it is the better one; ask before you change it)")
    store.index()
    assert store.resolve("tiny").manifest.version == "1"
    with pytest.raises(StoreError, match="other"):
        store.resolve("other")


def test_an_alias_is_in_the_store_or_nowhere(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store, version="1")
    publish(store, version="2")
    files.broken.add("PROMOTED")
    with pytest.raises(StoreUnreachable, match="the line is cut"):
        store.promote("tiny", "1")
    assert ModelStore(store.root).promoted("tiny") is None
    assert other.promoted("tiny") is None


def test_removing(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store, version="1")
    publish(store, version="2")
    store.promote("tiny", "1")
    other.remove("tiny", "2")
    assert paths(files) == [*VERSION_1, "tiny/PROMOTED"]
    other.remove("tiny", "1")
    assert paths(files) == []
    assert not (other.root / "tiny").exists()
    with pytest.raises(StoreError, match=rf"no model 'tiny' in {URL}"):
        other.resolve("tiny")


def test_a_removal_that_is_cut_off_leaves_no_promotion_of_nothing(
    files: type[FlakyFileSystem], store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    store.promote("tiny", "1")
    delete = store._files.delete

    def killed(path: str) -> None:
        if path.endswith(MANIFEST_FILE):
            raise KeyboardInterrupt
        delete(path)

    monkeypatch.setattr(store._files, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        store.remove("tiny", "1")
    assert paths(files) == VERSION_1


def test_a_list_reads_manifests_alone(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    publish(store)
    files.read.clear()
    assert other.manifest("tiny").version == "1"
    assert {path for path, _, _ in files.read} == {f"{ROOT}/tiny/1/{MANIFEST_FILE}"}
    assert not (other.root / "tiny").exists()


# Publishing


def test_of_two_publishers_one_wins(files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore) -> None:
    """The second is as far as it can be without having seen the first."""
    with store.staging() as staged, other.staging() as late:
        manifest, differing = stage(staged), stage(late, labels=b"".join(b"other %d\n" % i for i in range(10)))
        real = files.put_file

        def overtaken(self: FlakyFileSystem, lpath: str, rpath: str, **options: Any) -> None:
            files.put_file = real  # type: ignore[method-assign]
            with pytest.raises(StoreError, match=r"tiny version 1 is being published by another"):
                other.publish(late, differing)
            real(self, lpath, rpath, **options)

        files.put_file = overtaken  # type: ignore[method-assign]
        store.publish(staged, manifest)
    assert paths(files) == VERSION_1
    other.index()
    other.resolve("tiny").verify()
    with other.staging() as late, pytest.raises(StoreError, match=r"tiny version 1 is there already"):
        other.publish(late, stage(late))
    assert paths(files) == VERSION_1
    assert not list(other.root.glob("*/2"))


@pytest.mark.parametrize("broken", ["labels.txt", MANIFEST_FILE])
def test_a_publication_that_breaks_off_leaves_nothing(
    files: type[FlakyFileSystem], store: RemoteStore, broken: str
) -> None:
    files.broken.add(broken)
    with pytest.raises(StoreUnreachable):
        publish(store)
    files.broken.clear()
    assert paths(files) == []
    assert not (store.root / "tiny").exists()
    assert publish(store).manifest.version == "1"


def test_a_publisher_that_was_killed_is_in_nobodys_way(
    files: type[FlakyFileSystem], store: RemoteStore, other: RemoteStore
) -> None:
    publish(store)
    put(files, f"tiny/2/{CLAIM_FILE}", b"whose")
    put(files, "tiny/2/fp32.onnx", b"wei")
    other.index()
    assert (other.versions("tiny"), other.next_version("tiny")) == (["1"], "3")
    with pytest.raises(StoreError, match="or that broke off; name another --version"):
        publish(other, version="2")
    assert publish(other, version="3").manifest.version == "3"


def test_an_answer_that_was_lost_is_no_failure(
    files: type[FlakyFileSystem], store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has what was sent, and the library sent it again."""
    real = files.pipe_file

    def twice(self: FlakyFileSystem, path: str, value: bytes, **options: Any) -> None:
        real(self, path, value, **options)
        real(self, path, value, **options)

    monkeypatch.setattr(files, "pipe_file", twice)
    assert publish(store).manifest.version == "1"
    assert paths(files) == VERSION_1


# What else lies there


def test_names_that_are_none_are_passed_over(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    publish(store)
    for path in (
        "../evil/1/manifest.json", ".hidden/1/manifest.json", "Tiny/1/manifest.json", "tiny/0/manifest.json",
        "tiny/01/manifest.json", "tiny/4/deeper/manifest.json", "tiny/aliases/7", "tiny/aliases/stable",
        "tiny/aliases/.x", "manifest.json", "readme.txt",
    ):  # fmt: skip
        put(files, path, b"1")
    index = store.index()
    assert (list(index), list(index["tiny"].versions), index["tiny"].aliases) == (["tiny"], ["1"], {})


@pytest.mark.parametrize("text", [b"", b"one", b"1\n2", b"../1", b"\xff", b"9"])
def test_a_broken_alias_is_one_models_trouble(files: type[FlakyFileSystem], store: RemoteStore, text: bytes) -> None:
    publish(store)
    publish(store, "sound")
    put(files, "tiny/PROMOTED", text)
    store.index()
    with pytest.raises(StoreError, match=f"{URL}/tiny: .*(no version|not there)"):
        store.resolve("tiny")
    assert store.resolve("sound").manifest.name == "sound"


def test_a_store_that_cannot_be_listed_is_told(files: type[FlakyFileSystem], store: RemoteStore) -> None:
    files.broken.add("find")
    with pytest.raises(StoreUnreachable, match=rf"{URL}: the store cannot be used: the line is cut"):
        store.names()
