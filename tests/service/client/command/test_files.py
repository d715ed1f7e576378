from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from service.client.command import files
from service.client.command.files import NoImages, Source, find, read
from service.client.results import Problem


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photos/ in it."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/deep/d.tiff", ".hidden.jpg", ".git/e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names: str) -> list[str]:
    return [source.path for source in find(names)]


def test_a_folder_is_its_images_at_any_depth(photos: Path) -> None:
    assert found("photos") == ["photos/a.PNG", "photos/b.jpg", "photos/sub/c.webp", "photos/sub/deep/d.tiff"]
    assert [source.place for source in find(["photos"])] == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tiff"]


def test_a_named_file_is_taken_whatever_it_is_called(photos: Path) -> None:
    assert found("photos/notes.txt", "photos/b.jpg", "photos/b.jpg") == ["photos/notes.txt"] + ["photos/b.jpg"] * 2
    assert find([str(photos / "photos" / "b.jpg")])[0].place == "b.jpg"


def test_patterns_that_the_shell_left_alone(photos: Path) -> None:
    assert found("photos/*.jpg") == ["photos/b.jpg"]
    assert found("photos/**/*.webp") == ["photos/sub/c.webp"]
    assert found("photos/s*") == ["photos/sub/c.webp", "photos/sub/deep/d.tiff"]


def test_a_file_that_looks_like_a_pattern(photos: Path) -> None:
    (photos / "photos" / "x[1].jpg").write_bytes(b"x")
    assert found("photos/x[1].jpg") == ["photos/x[1].jpg"]


@pytest.mark.parametrize("name", ["none.jpg", "empty", "photos/*.gif", "x[1].jpg"])
def test_what_is_not_there_is_said_at_once(photos: Path, name: str) -> None:
    with pytest.raises(NoImages) as raised:
        find(["photos", name])
    assert str(raised.value).startswith(f"{name}: ")


def test_links_that_go_round_end(photos: Path) -> None:
    (photos / "photos" / "round").symlink_to(photos / "photos")
    assert len(found("photos")) == 4


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"an image")))
    (source,) = find(["-"])
    assert (source.name, source.place) == ("-", "stdin")
    assert read(source) == b"an image"
    with pytest.raises(NoImages, match="only once"):
        find(["-", "-"])


def test_bytes_of_a_file(photos: Path) -> None:
    assert read(Source("photos/b.jpg", "b.jpg")) == b"b.jpg"


def problem(path: str | Path) -> str:
    said = read(Source(str(path), "x"))
    assert isinstance(said, Problem)
    assert "\n" not in said.message
    return said.code


def test_why_there_are_none(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe.jpg")
    Path("empty.jpg").touch()
    Path("dangling.jpg").symlink_to("nowhere")
    assert found("dangling.jpg", "pipe.jpg") == ["dangling.jpg", "pipe.jpg"]
    assert problem("dangling.jpg") == "unreadable"
    assert problem("photos") == "unreadable"
    assert problem("pipe.jpg") == "unreadable"
    assert problem("empty.jpg") == "empty"
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 4)
    assert problem("photos/b.jpg") == "too_large"


def test_a_name_that_is_no_utf8(photos: Path) -> None:
    odd = b"photos/\xff.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    (source,) = find([os.fsdecode(odd)])
    assert source.name == "photos/\ufffd.jpg"
    assert read(source) == b"odd"
