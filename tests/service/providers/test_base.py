from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest

from service.config import ConfigError
from service.providers.base import GPU_SLOTS, Share, kind, private_folder
from service.settings import Provider


def test_every_provider_is_of_a_kind() -> None:
    kinds = {provider: kind(provider) for provider in get_args(Provider)}
    assert kinds == {"tensorrt": "GPU", "cuda": "GPU", "openvino": "CPU", "cpu": "CPU"}


@pytest.mark.parametrize(
    ("provider", "cpus", "wanted", "slots", "threads"),
    [
        ("cpu", 8, None, 8, 1),
        ("openvino", 4, None, 4, 1),
        ("cpu", 8, 1, 1, 8),
        ("openvino", 8, 1, 1, 8),
        ("openvino", 8, 3, 3, 2),
        ("cpu", 2, 4, 4, 1),
        ("cuda", 64, None, GPU_SLOTS, 32),
        ("tensorrt", 64, None, GPU_SLOTS, 32),
        ("cuda", 64, 5, 5, 12),
    ],
)
def test_slots_and_their_threads_use_the_share(
    provider: Any, cpus: int, wanted: int | None, slots: int, threads: int
) -> None:
    share = Share(cpus, wanted)
    assert (share.slots(provider), share.threads(provider)) == (slots, threads)


def test_a_cache_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "cache", "a", "b")
    finally:
        os.umask(before)
    assert made == tmp_path / "cache" / "a" / "b"
    for folder in (made, made.parent, made.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "cache", "a", "b") == made


@pytest.mark.parametrize("level", ["cache/a", "cache/a/b"])
@pytest.mark.parametrize("mode", [0o777, 0o702, 0o720])
def test_a_cache_folder_that_others_may_write_to(tmp_path: Path, mode: int, level: str) -> None:
    private_folder(tmp_path / "cache", "a", "b")
    (tmp_path / level).chmod(mode)
    with pytest.raises(ConfigError, match=f"RESNET_CACHE_DIR: .*/{level} .*writable by no other"):
        private_folder(tmp_path / "cache", "a", "b")


def test_a_cache_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private_folder(tmp_path, "cache")
    owner = folder.stat().st_uid
    if owner == 0:
        monkeypatch.setattr("os.getuid", lambda: 1000)  # what root made may be trusted
        assert private_folder(tmp_path, "cache") == folder
        return
    monkeypatch.setattr("os.getuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match="must be owned"):
        private_folder(tmp_path, "cache")


@pytest.mark.parametrize("file", ["cache", "cache/a"])
def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(ConfigError, match=r"RESNET_CACHE_DIR: .*(exists|Not a directory)"):
        private_folder(tmp_path / "cache", "a", "b")
