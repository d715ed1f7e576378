"""What models and versions may be called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.names import check_name, check_version


@pytest.mark.parametrize("name", ["a", "0", "resnet50", "a.b_c-d", "x" * 64, "cifar10-resnet16"])
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "-a", "_a", "A", "a/b", "a b", "ä", "a\n", "x" * 65, "a@1", "a\x00"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no model name"):
        check_name(name)


@given(st.text(max_size=70))
def test_a_name_that_is_taken_is_one_folder_and_plain_in_a_url(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert Path("/store", name).parent == Path("/store")
    assert Path("/store", name).resolve() == Path("/store", name)
    assert name.isascii()
    assert not set(name) & set("/\\@%?#&, \n")


@pytest.mark.parametrize("version", ["1", "9", "10", "999999999"])
def test_versions_that_are_taken(version: str) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize("version", ["", "0", "01", "-1", "+1", "1.0", "1\n", " 1", "٣", "1_0", "1234567890", "latest"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        check_version(version)
