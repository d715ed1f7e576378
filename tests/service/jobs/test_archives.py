"""Archives made to harm: what they say of themselves is bounded before it is believed."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadEntry, BadRequest, BodyTooLarge, ImageTooLarge, ServiceError, TooManyImages
from service.jobs.archives import Archive, is_zip
from tests.service.jobs.conftest import a_zip

MANY = 2**40


def opened(path: Path, data: bytes, max_images: int = 100, max_image_bytes: int = 2**20) -> Archive:
    (path / "input").write_bytes(data)
    return Archive(path / "input", max_images, max_image_bytes)


def with_size(data: bytes, size: int) -> bytes:
    """The archive ``data`` of one entry, whose directory says that it unpacks to ``size``."""
    place = data.rindex(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<L", size) + data[place + 4 :]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entries_are_read_in_order(tmp_path: Path, compression: int) -> None:
    entries = {f"photos/{i}.jpg": bytes([i]) * (i * 1000) for i in range(5)}
    with opened(tmp_path, a_zip(entries, compression)) as archive:
        images = archive.contents(MANY).images
        assert [image.name for image in images] == list(entries)
        assert [archive.read(image.start) for image in images] == list(entries.values())


def test_what_is_no_file_of_the_senders_is_left_out(tmp_path: Path) -> None:
    entries = {
        "a/": b"",
        "a/1.jpg": b"1",
        "__MACOSX/a/._1.jpg": b"fork",
        "a/.DS_Store": b"x",
        "Thumbs.db": b"x",
        "a/2.txt": b"2",
    }
    with opened(tmp_path, a_zip(entries)) as archive:
        images = archive.contents(MANY).images
        assert [(image.name, archive.read(image.start)) for image in images] == [("a/1.jpg", b"1"), ("a/2.txt", b"2")]


def test_names_are_shown_and_never_used(tmp_path: Path) -> None:
    with opened(tmp_path, a_zip({"../../evil.jpg": b"1", "/etc/passwd": b"2", "C:\\x.jpg": b"3"})) as archive:
        images = archive.contents(MANY).images
        assert [image.name for image in images] == ["evil.jpg", "etc/passwd", "x.jpg"]
        assert [archive.read(image.start) for image in images] == [b"1", b"2", b"3"]
    assert [path.name for path in tmp_path.rglob("*")] == ["input"]


def test_two_entries_of_one_name_are_two_images(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a", b"2")
    with opened(tmp_path, file.getvalue()) as archive:
        assert [archive.read(image.start) for image in archive.contents(MANY).images] == [b"1", b"2"]


def test_a_bomb_is_refused_as_a_whole_by_what_it_unpacks_to(tmp_path: Path) -> None:
    data = a_zip({str(i): b"\0" * 10**6 for i in range(50)})
    assert len(data) < 100_000
    with opened(tmp_path, data) as archive:
        with pytest.raises(BodyTooLarge, match="unpacks to too much"):
            archive.contents(10**7)
        assert len(archive.contents(10**8).images) == 50


def test_an_entry_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    data = a_zip({"large": b"\0" * (2**20 + 1), "bomb": b"\0" * (2**21)})
    with opened(tmp_path, data, max_image_bytes=2**20) as archive, pytest.raises(ImageTooLarge, match="too many bytes"):
        archive.read(0)
    with opened(tmp_path, data, max_image_bytes=MANY) as archive, pytest.raises(BadEntry, match="200 times"):
        archive.read(1)


def test_an_entry_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    """The directory says 10 bytes; the data would unpack to ten million."""
    with opened(tmp_path, with_size(a_zip({"liar": b"\0" * 10**7}), 10)) as archive:
        assert archive.contents(MANY).images[0].length == 10
        tracemalloc.start()
        with contextlib.suppress(BadEntry):
            assert len(archive.read(0)) == 10
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
        tracemalloc.stop()


def test_an_entry_shorter_than_it_says_is_broken(tmp_path: Path) -> None:
    data = with_size(a_zip({"liar": b"12345"}, zipfile.ZIP_STORED), 10)
    with opened(tmp_path, data) as archive, pytest.raises(BadEntry):
        archive.read(0)


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x41])
def test_an_encrypted_entry_is_its_own_error(tmp_path: Path, flag: int) -> None:
    data = bytearray(a_zip({"secret": b"1", "open": b"2"}))
    data[data.index(b"PK\x01\x02") + 8] |= flag
    with opened(tmp_path, bytes(data)) as archive:
        with pytest.raises(BadEntry, match="encrypted"):
            archive.read(0)
        assert archive.read(1) == b"2"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_bound_is_not_taken(tmp_path: Path, compression: int) -> None:
    with opened(tmp_path, a_zip({"a": b"1" * 1000}, compression)) as archive, pytest.raises(BadEntry, match="deflated"):
        archive.read(0)


def test_a_broken_entry_is_its_own_error(tmp_path: Path) -> None:
    data = a_zip({"a": b"hello" * 100, "b": b"world"}, zipfile.ZIP_STORED).replace(b"hello", b"jello", 1)
    with opened(tmp_path, data) as archive:
        with pytest.raises(BadEntry, match="broken"):
            archive.read(0)
        assert archive.read(1) == b"world"


def test_an_archive_within_is_just_an_entry(tmp_path: Path) -> None:
    inner = a_zip({"a": b"1"})
    with opened(tmp_path, a_zip({"inner.zip": inner})) as archive:
        assert archive.read(0) == inner


def test_too_many_images(tmp_path: Path) -> None:
    with opened(tmp_path, a_zip({str(i): b"" for i in range(100)})) as archive:
        assert len(archive.contents(MANY).images) == 100
    with (
        opened(tmp_path, a_zip({str(i): b"" for i in range(101)})) as archive,
        pytest.raises(TooManyImages, match="at most 100"),
    ):
        archive.contents(MANY)


@pytest.mark.parametrize("count", [400, 5000])
def test_thousands_of_empty_entries_are_not_even_listed(tmp_path: Path, count: int) -> None:
    data = a_zip({f"{i}/": b"" for i in range(count)})
    with pytest.raises(TooManyImages):
        opened(tmp_path, data)


def test_a_directory_of_long_comments_is_not_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for i in range(20):
            info = zipfile.ZipInfo(str(i))
            info.comment = b"x" * 60_000
            made.writestr(info, b"")
    with pytest.raises(TooManyImages, match="directory"):
        opened(tmp_path, file.getvalue())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\x03\x04",
        b"PK\x03\x04" + b"\xff" * 1000,
        a_zip({"a": b"1" * 100})[:-1],
        a_zip({"a": b"1" * 100})[:60],
        b"PK\x05\x06" + b"\xff" * 18,
        a_zip({"ä": b"1"}).replace("ä".encode(), b"\xff\xfe"),
    ],
    ids=["nothing", "PK", "a signature", "rubbish", "cut at the end", "cut", "a rubbish directory", "no UTF-8"],
)
def test_what_is_no_sound_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        opened(tmp_path, data)
    assert isinstance(caught.value, (BadRequest, TooManyImages))


@pytest.mark.parametrize("entries", [{}, {"a/": b""}, {".hidden": b"1"}])
def test_an_archive_of_no_file(tmp_path: Path, entries: dict[str, bytes]) -> None:
    with opened(tmp_path, a_zip(entries)) as archive, pytest.raises(BadRequest, match="holds no file"):
        archive.contents(MANY)


def test_archives_are_known_by_their_first_bytes() -> None:
    assert is_zip(a_zip({"a": b"1"}))
    assert is_zip(a_zip({}))
    assert not is_zip(b"\xff\xd8\xff")


@given(st.data())
def test_no_damage_gives_anything_but_our_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(a_zip({"a.jpg": b"hello" * 20, "b": b"", "c/": b"", "d": bytes(range(256))}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    folder = tmp_path_factory.mktemp("damaged")
    try:
        with opened(folder, damaged, max_image_bytes=1000) as archive:
            for image in archive.contents(100_000).images:
                try:
                    assert len(archive.read(image.start)) == image.length <= 1000
                except (BadEntry, ImageTooLarge):
                    continue
    except ServiceError:
        return
