from __future__ import annotations

import ntpath
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.record import clean_name, is_job_id


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat.jpg", "cat.jpg"),
        ("cats/1.jpg", "cats/1.jpg"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\photos\\..\\cat.jpg", "photos/cat.jpg"),
        ("a/./b//c", "a/b/c"),
        ("a\x00b\n.jpg", "a\ufffdb\ufffd.jpg"),
        ("\ud800.jpg", "?.jpg"),
        ("zażółć.jpg", "zażółć.jpg"),
        ("..", None),
        ("", None),
        (" / ", None),
        ("x" * 300 + ".jpg", "x" * 251 + ".jpg"),
    ],
)
def test_names_are_shown_without_what_could_harm(name: str, shown: str | None) -> None:
    assert clean_name(name) == shown


@given(st.text() | st.text("./\\:ab\x00", max_size=20))
def test_no_name_leads_out_of_a_folder(name: str) -> None:
    shown = clean_name(name)
    if shown is None:
        return
    assert 0 < len(shown) <= 255
    assert shown.isprintable()
    shown.encode()
    for path in (posixpath, ntpath):
        assert path.normpath(path.join("folder", shown)).startswith("folder")


@pytest.mark.parametrize("text", ["", "a" * 31, "A" * 32, "../" + "a" * 29, "g" * 32, "a" * 32 + "\n", "a" * 33])
def test_what_is_no_id(text: str) -> None:
    assert not is_job_id(text)


def test_what_is_an_id() -> None:
    assert is_job_id("0123456789abcdef" * 2)
