"""What is written before what: a power cut between any two steps leaves a version whole, or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from model_store.aliases import write_alias
from model_store.durable import sync_files
from model_store.store import ModelStore
from service.tuning import profile as profiles
from tests.model_store.stores import publish
from tests.service.tuning.conftest import a_profile


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order: ``sync NAME`` and ``rename to NAME``."""
    noted: list[str] = []
    replace = os.replace

    def note_sync(descriptor: int) -> None:
        noted.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def note_replace(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        noted.append(f"rename to {Path(target).name}")

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    return noted


def test_a_version_is_on_the_disk_before_it_has_its_name(tmp_path: Path, steps: list[str]) -> None:
    root = tmp_path / "store"
    stored = publish(ModelStore(root))
    named = steps.index(f"rename to {stored.folder.name}")
    before, after = steps[:named], steps[named + 1 :]
    files = {f"sync {path.name}" for path in stored.folder.iterdir()}
    assert "sync manifest.json" in files
    assert set(before[:-1]) == files
    assert before[-1].startswith("sync .staging-"), "the folder comes after its files"
    assert after == [f"sync {stored.manifest.name}", f"sync {root.name}"]


@pytest.mark.parametrize(("alias", "file", "folder"), [("stable", "PROMOTED", "net"), ("canary", "canary", "aliases")])
def test_an_alias_is_on_the_disk_before_it_takes_over(
    tmp_path: Path, steps: list[str], alias: str, file: str, folder: str
) -> None:
    model = tmp_path / "net"
    model.mkdir()
    write_alias(model, alias, "3")
    assert steps[0] == "sync net"
    assert steps[1].startswith("sync .staging-")
    assert steps[2:] == [f"rename to {file}", f"sync {folder}"]


def test_a_profile_is_on_the_disk_before_it_takes_over(tmp_path: Path, steps: list[str]) -> None:
    profile = a_profile()
    profiles.save(tmp_path, profile)
    assert steps[0].startswith("sync .staging-")
    assert steps[1:] == [f"rename to {profile.key.file_name}", f"sync {tmp_path.name}"]


def test_folders_within_are_synced_before_those_around_them(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "file").touch()
    sync_files(tmp_path / "outer")
    assert steps == ["sync file", "sync inner", "sync outer"]


def test_an_alias_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(28, "No space left on device")

    write_alias(tmp_path, "stable", "1")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_alias(tmp_path, "stable", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["PROMOTED"]
    assert (tmp_path / "PROMOTED").read_text() == "1\n"
