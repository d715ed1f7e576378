from __future__ import annotations

import errno
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StorageFull
from service.jobs.results import Results, whole_lines


def a_line(index: int, failed: bool = False, pad: int = 0) -> bytes:
    result = {"error": {}} if failed else {"predictions": "x" * pad}
    return orjson.dumps({"name": None, "index": index, **result}) + b"\n"


def test_lines_are_kept_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "results"
    with Results(path) as results:
        results.append([a_line(0), a_line(1, failed=True)], 1)
        results.append([], 0)
        results.append([a_line(2)], 0)
        results.sync()
        assert (results.done, results.failed) == (3, 1)
    with Results(path) as results:
        assert (results.done, results.failed) == (3, 1)
    assert path.read_bytes() == a_line(0) + a_line(1, failed=True) + a_line(2)


@pytest.mark.parametrize(
    "tail",
    [
        b'{"name":null,"ind',
        a_line(2)[:-1],
        b"\x00" * 100,
        b"\x00" * 10 + b"\n" + a_line(2),
        a_line(3),
        b"[]\n",
        b"2\n",
        b"\n",
        b"\xff\n",
    ],
)
def test_what_is_unsound_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "results"
    sound = a_line(0) + a_line(1, failed=True)
    path.write_bytes(sound + tail)
    with Results(path) as results:
        assert (results.done, results.failed) == (2, 1)
        assert path.read_bytes() == sound
        results.append([a_line(2)], 0)
    assert path.read_bytes() == sound + a_line(2)


@given(data=st.data())
def test_wherever_a_file_is_torn_its_whole_lines_stay(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = [a_line(i, failed) for i, failed in enumerate(data.draw(st.lists(st.booleans(), max_size=5)))]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("torn") / "results"
    path.write_bytes(whole[:cut])
    with Results(path) as results:
        assert results.done == whole[:cut].count(b"\n")
        results.append(lines[results.done :], 0)
    assert path.read_bytes() == whole


def test_a_full_disk_leaves_no_half_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results"
    write, written = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        if written:
            raise OSError(errno.ENOSPC, "no space")
        written.append(write(descriptor, data[:5]))
        return written[0]

    with Results(path) as results:
        results.append([a_line(0)], 0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(StorageFull):
                results.append([a_line(1)], 0)
        assert path.read_bytes() == a_line(0)
        results.append([a_line(1)], 0)
    assert path.read_bytes() == a_line(0) + a_line(1)


@pytest.mark.parametrize("pad", [0, 10, 100_000, 200_000])
def test_readers_see_whole_lines_alone(tmp_path: Path, pad: int) -> None:
    path = tmp_path / "results"
    path.write_bytes(a_line(0, pad=pad) + a_line(1, pad=pad)[:-1])
    file, size = whole_lines(path)
    with file:
        assert file.read(size) == a_line(0, pad=pad)


@pytest.mark.parametrize("content", [b"", b"x" * 200_000])
def test_readers_may_find_no_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results"
    assert whole_lines(path)[1] == 0
    path.write_bytes(content)
    file, size = whole_lines(path)
    file.close()
    assert size == 0
