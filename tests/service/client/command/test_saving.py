from __future__ import annotations

from pathlib import Path

import pytest

from service.client.command.files import Source
from service.client.command.saving import save, targets


def test_pictures_keep_the_folders_and_are_never_the_same(tmp_path: Path) -> None:
    places = ["ship.jpg", "sub/ship.jpg", "ship.png", "ship.webp", "ship-2.jpg", "stdin", "two.dots.jpg"]
    found = [Source(f"{i}", place) for i, place in enumerate(places)]
    names = [path.relative_to(tmp_path).as_posix() for path in targets(found, tmp_path).values()]
    assert names == [
        "ship.png",
        "sub/ship.png",
        "ship-2.png",
        "ship-3.png",
        "ship-2-2.png",
        "stdin.png",
        "two.dots.png",
    ]


def test_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "a.png"
    save(target, b"one")
    save(target, b"two")
    assert target.read_bytes() == b"two"

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        save(target, b"three")
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"two"
