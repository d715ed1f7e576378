from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from service.config import Settings
from service.images.decode import Decoder
from service.tuning import images as module
from service.tuning.images import TuneError, load_images
from tests.service.conftest import a_png, encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good images, and what must not be taken."""
    photos = tmp_path / "photos"
    for number in range(5):
        path = photos / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(a_png(number))
    (photos / "broken.png").write_bytes(a_png()[:40])
    (photos / "notes.txt").write_text("no image")
    (photos / "drawing.gif").write_bytes(encode(Image.new("RGB", (4, 4)), "GIF"))
    (photos / ".hidden.png").write_bytes(a_png(9))
    (photos / "empty.png").touch()
    return photos


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("as_zip", [False, True])
def test_what_the_service_takes_is_taken(folder: Path, as_zip: bool) -> None:
    source = zipped(folder) if as_zip else folder
    found = load_images(source, Settings())
    assert sorted(found.bodies) == sorted(a_png(number) for number in range(5))
    assert found.origin == f"5 images of {source.name}"


@pytest.mark.parametrize("damage", ["content", "encrypted"])
def test_a_damaged_zip_names_its_member(folder: Path, damage: str) -> None:
    path = zipped(folder)
    data = bytearray(path.read_bytes())
    if damage == "content":
        place = data.index(a_png(0)) + 20
        data[place] ^= 0xFF
    else:
        data[data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 50) + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(TuneError, match=r"photos\.zip: .* cannot be read: ") as caught:
        load_images(path, Settings())
    assert "\n" not in str(caught.value)


def test_the_operators_limits_hold(folder: Path) -> None:
    with pytest.raises(TuneError, match="no image that the service takes"):
        load_images(folder, Settings.from_env({"RESNET_IMAGE_FORMATS": "jpeg"}))
    large = Settings.from_env({"RESNET_MAX_BODY_BYTES": "1024"})
    (folder / "large.png").write_bytes(a_png() + bytes(2000))
    assert len(load_images(folder, large).bodies) == 5


@pytest.mark.parametrize(("files", "most", "taken"), [(5, 5, 5), (6, 5, 3), (20, 5, 5), (21, 5, 5), (1, 5, 1)])
def test_of_many_some_are_taken_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, most: int, taken: int
) -> None:
    monkeypatch.setattr(module, "MOST", most)
    for number in range(files):
        (tmp_path / f"{number:03}.png").write_bytes(a_png(number))
    bodies = load_images(tmp_path, Settings()).bodies
    assert len(bodies) == taken
    assert bodies[0] == a_png(0)


def test_there_must_be_images(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, why in (("missing", "no such"), ("file", "neither a folder nor a zip"), ("empty", "no image")):
        with pytest.raises(TuneError, match=why):
            load_images(tmp_path / name, Settings())


def test_without_any_there_are_made_ones() -> None:
    found = load_images(None, Settings())
    assert "made" in found.origin
    assert len(set(found.bodies)) == len(found.bodies) > 8
    for body in found.bodies:
        assert Decoder(Settings().decode).decode(body).size == (500, 375)


@pytest.mark.parametrize("refusing", [{"IMAGE_FORMATS": "png"}, {"MAX_PIXELS": "1024"}, {"MAX_BODY_BYTES": "1024"}])
def test_made_images_that_the_service_would_refuse(refusing: dict[str, str]) -> None:
    settings = Settings.from_env({f"RESNET_{name}": value for name, value in refusing.items()})
    with pytest.raises(TuneError, match="--images"):
        load_images(None, settings)
