"""A store at a URL in memory, as it is seen from two machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store import remote_files
from model_store.locations import open_store
from model_store.remote import FETCHING_PREFIX, RemoteStore
from tests.model_store.flaky import URL, FlakyFileSystem, flaky

ROOT = "/store/models"
VERSION_1 = ["tiny/1/fp32.onnx", "tiny/1/labels.txt", "tiny/1/manifest.json"]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyFileSystem]]:
    monkeypatch.setattr(remote_files, "_PART_BYTES", 16)
    with flaky() as found:
        yield found


def a_store(cache: Path) -> RemoteStore:
    store = open_store(URL, cache)
    assert isinstance(store, RemoteStore)
    return store


@pytest.fixture
def store(files: type[FlakyFileSystem], tmp_path: Path) -> RemoteStore:
    """Empty."""
    return a_store(tmp_path / "here")


@pytest.fixture
def other(files: type[FlakyFileSystem], tmp_path: Path) -> RemoteStore:
    """The same store from another machine."""
    return a_store(tmp_path / "there")


def put(files: type[FlakyFileSystem], path: str, data: bytes) -> None:
    files(use_listings_cache=False).pipe_file(f"{ROOT}/{path}", data)


def paths(files: type[FlakyFileSystem]) -> list[str]:
    return sorted(path.removeprefix(f"{ROOT}/") for path in files.store)


def left_over(store: RemoteStore) -> list[str]:
    return [path.name for path in store.root.iterdir() if path.name.startswith((FETCHING_PREFIX, ".staging"))]
