"""Everything that an input can be: the same images come out of all of them, by name, with their bytes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from service.bulk.parts import BulkError, Part
from service.bulk.planning import Asked, plan
from service.errors import BadEntry, BodyTooLarge

IMAGES = {f"{folder}{n}.jpg": f"bytes of {folder}{n}".encode() for folder in ("", "deep/er/") for n in range(4)}
MAX_BYTES = 1000


def asked(*inputs: object, column: str | None = None, key_column: str | None = None, size: int = 3) -> Asked:
    return Asked(tuple(map(str, inputs)), column, key_column, size)


def read(parts: list[Part]) -> dict[str, bytes]:
    found = [item for part in parts for item in part.work.items(MAX_BYTES)]
    assert len(found) == sum(part.images for part in parts)
    # An archive is open only while its items are asked for.
    return {item.key: item.read() for part in parts for item in part.work.items(MAX_BYTES)}


def folder(root: Path) -> str:
    for name, data in {**IMAGES, "notes.txt": b"no image", ".hidden.jpg": b"", ".git/a.jpg": b""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def zipped(root: Path) -> str:
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**IMAGES, "__MACOSX/1.jpg": b"", "labels.csv": b""}.items():
            archive.writestr(name, data)
    return str(root / "a.zip")


def tarred(root: Path, name: str = "a.tar", mode: str = "w") -> str:
    with tarfile.open(root / name, mode) as archive:  # type: ignore[call-overload]
        for entry, data in {**IMAGES, "0.json": b"{}"}.items():
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(root / name)


def compressed(root: Path) -> str:
    return tarred(root, "a.tar.gz", "w:gz")


@pytest.mark.parametrize("make", [folder, zipped, tarred, compressed])
def test_all_images_of_an_input_are_read(make: Callable[[Path], str], tmp_path: Path) -> None:
    parts = list(plan(asked(make(tmp_path))))
    assert read(parts) == IMAGES
    assert [part.number for part in parts] == list(range(len(parts)))
    assert make is compressed or max(part.images for part in parts) == 3


def test_links_to_images_are_images(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "1.jpg").symlink_to(folder(tmp_path / "photos") + "/0.jpg")
    (tmp_path / "links" / "2.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "links" / "round.jpg").symlink_to(tmp_path / "links")
    assert read(list(plan(asked(tmp_path / "links")))) == {"1.jpg": b"bytes of 0"}


@pytest.mark.parametrize("make", [folder, zipped, tarred, compressed])
def test_a_part_survives_being_written_down(make: Callable[[Path], str], tmp_path: Path) -> None:
    parts = list(plan(asked(make(tmp_path))))
    assert [Part.model_validate_json(part.model_dump_json()) for part in parts] == parts
    assert list(plan(asked(make(tmp_path)))) == parts


def test_a_pattern_takes_images_together_and_archives_one_by_one(tmp_path: Path) -> None:
    folder(tmp_path / "photos")
    zipped(tmp_path)
    tarred(tmp_path)
    images = list(plan(asked(tmp_path / "photos" / "*.jpg")))
    assert {Path(name).name for name in read(images)} == {"0.jpg", "1.jpg", "2.jpg", "3.jpg"}
    archives = list(plan(asked(tmp_path / "a.*")))
    assert [Path(part.work.source).name for part in archives] == ["a.tar"] * 3 + ["a.zip"] * 3
    with pytest.raises(BulkError, match="nothing matches"):
        list(plan(asked(tmp_path / "*.webp")))


def test_a_list_names_files_beside_it_and_anywhere(tmp_path: Path) -> None:
    folder(tmp_path / "photos")
    elsewhere = tmp_path / "photos" / "1.jpg"
    (tmp_path / "list.txt").write_text(f"# comment\nphotos/0.jpg\n\n{elsewhere}\n", encoding="utf-8")
    found = read(list(plan(asked(tmp_path / "list.txt"))))
    assert found == {str(tmp_path / "photos" / "0.jpg"): IMAGES["0.jpg"], str(elsewhere): IMAGES["1.jpg"]}


@pytest.mark.parametrize(
    "of",
    [
        lambda name: IMAGES[name],
        lambda name: {"bytes": IMAGES[name], "path": None},
        lambda name: name,
        lambda name: {"bytes": None, "path": name},
    ],
    ids=["bytes", "struct of bytes", "paths", "struct of paths"],
)
@pytest.mark.parametrize("key", ["name", None])
def test_a_table_has_bytes_or_paths(of: Callable[[str], object], key: str | None, tmp_path: Path) -> None:
    folder(tmp_path)
    rows = {"image": [of(name) for name in IMAGES], "name": list(IMAGES), "other": [1.0] * len(IMAGES)}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "t.parquet", row_group_size=5)
    found = read(list(plan(asked(tmp_path / "t.parquet", column="image", key_column=key))))
    assert list(found.values()) == list(IMAGES.values())
    assert list(found) == (list(IMAGES) if key else [str(number) for number in range(len(IMAGES))])


def test_a_table_needs_its_column(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"image": [b""]}), tmp_path / "t.parquet")
    with pytest.raises(BulkError, match="--column"):
        list(plan(asked(tmp_path / "t.parquet")))
    with pytest.raises(BulkError, match="no column 'picture'; there: image"):
        list(plan(asked(tmp_path / "t.parquet", column="picture")))


def test_an_empty_row_is_that_rows_failure(tmp_path: Path) -> None:
    table = pyarrow.table({"image": pyarrow.array([b"x", None], pyarrow.binary())})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    (part,) = plan(asked(tmp_path / "t.parquet", column="image"))
    good, bad = part.work.items(MAX_BYTES)
    assert good.read() == b"x"
    with pytest.raises(BadEntry):
        bad.read()


def test_stores_are_read_as_folders_are() -> None:
    files = fsspec.filesystem("memory")
    for name, data in IMAGES.items():
        files.pipe(f"/bulk-inputs/{name}", data)
    assert read(list(plan(asked("memory://bulk-inputs")))) == IMAGES


@pytest.mark.parametrize("make", [folder, zipped, tarred, compressed])
def test_what_is_too_large_is_refused_unread(make: Callable[[Path], str], tmp_path: Path) -> None:
    for part in plan(asked(make(tmp_path))):
        for item in part.work.items(5):
            with pytest.raises(BodyTooLarge, match="at most 5"):
                item.read()


def test_a_broken_zip_entry_fails_alone(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path))
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset
    data = bytearray(path.read_bytes())
    data[start + 30 + len("0.jpg") + 2] ^= 0xFF
    path.write_bytes(data)
    first, *others = (item for part in plan(asked(path, size=100)) for item in _read_all(part))
    assert isinstance(first, BadEntry)
    assert others == list(IMAGES.values())[1:]


def _read_all(part: Part) -> list[bytes | BadEntry]:
    found: list[bytes | BadEntry] = []
    for item in part.work.items(MAX_BYTES):
        try:
            found.append(item.read())
        except BadEntry as error:
            found.append(error)
    return found


@pytest.mark.parametrize("name", ["nothing-here", "broken.zip", "broken.tar", "broken.tar.gz", "broken.parquet"])
def test_an_input_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    if "." in name:
        (tmp_path / name).write_bytes(b"this is none")
    with pytest.raises(BulkError, match=name):
        list(plan(asked(tmp_path / name, column="image")))


def test_an_unknown_protocol_is_an_error_of_one_line() -> None:
    with pytest.raises(BulkError, match="nosuch"):
        list(plan(asked("nosuch://bucket/key")))
