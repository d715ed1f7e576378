"""Each file that a pattern matched comes once, by itself or with the folder that it is in."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from model_store.command_line.matches import once


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("ph/**", ["ph/a/b/z.jpg", "ph/a/y.jpg", "ph/x.jpg"]),
        ("ph/**/*", ["ph/a/b/z.jpg", "ph/a/y.jpg", "ph/x.jpg"]),
        ("ph/**/*.jpg", ["ph/a/b/z.jpg", "ph/a/y.jpg", "ph/x.jpg"]),
        ("ph/*", ["ph/a", "ph/x.jpg"]),
        ("**/a", ["ph/a"]),
        ("**/[ab]", ["ph/a"]),
        ("**/b", ["ph/a/b"]),
    ],
)
def test_once(pattern: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ph" / "a" / "b").mkdir(parents=True)
    for name in ("x.jpg", "a/y.jpg", "a/b/z.jpg"):
        (tmp_path / "ph" / name).touch()
    monkeypatch.chdir(tmp_path)
    matches = {name.rstrip("/"): Path(name).is_dir() for name in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    assert once(matches) == found


def test_urls_and_whole_paths() -> None:
    assert once({"/a/b": True, "/a/b/c.jpg": False, "s3://x/y": True}) == ["/a/b/c.jpg", "s3://x/y"]
