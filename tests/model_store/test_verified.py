"""A file is read as the manifest has it, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.store import StoreError
from model_store.verified import describe_file, read_verified, verify_file


@given(content=st.binary(min_size=1, max_size=200), other=st.binary(min_size=1, max_size=200))
def test_a_file_is_verified_by_its_content(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, other: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "file.onnx"
    path.write_bytes(content)
    described = describe_file(path)
    verify_file(path, described)
    path.write_bytes(other)
    if content != other:
        with pytest.raises(StoreError):
            verify_file(path, described)


def damage_link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def damage_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(b"abcde"), "5 bytes, the manifest says 6"),
        (lambda path: path.write_bytes(b"abcdef?"), "7 bytes, the manifest says 6"),
        (lambda path: path.write_bytes(b"abcdeF"), "SHA-256 is not the manifest's"),
        (lambda path: path.unlink(), "missing or not a plain file"),
        (damage_link, "missing or not a plain file"),
        (damage_pipe, "missing or not a plain file"),
        (lambda path: (path.unlink(), path.mkdir()), "missing or not a plain file"),
        (lambda path: os.link(path, path.parent / "other"), "a hard link.*copy it"),
    ],
)
def test_a_file_is_read_as_the_manifest_has_it_or_not_at_all(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(b"abcdef")
    described = describe_file(path)
    assert read_verified(path, described) == b"abcdef"
    damage(path)
    for check in (verify_file, read_verified):
        with pytest.raises(StoreError, match=told):
            check(path, described)


def test_an_unreadable_file_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(b"x")
    described = describe_file(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(StoreError):
        verify_file(path, described)
