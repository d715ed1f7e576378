"""The files that a manifest names: plain ones, with the content that it says."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final

from model_store.errors import Explained
from model_store.files import File
from model_store.plain_files import open_plain

_NOT_PLAIN: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EINVAL)


class StoreError(Explained):
    """A model that is missing, broken or may not be published; one line says which and why."""


def describe_file(path: Path) -> File:
    """Name, hash and size of ``path``, as the manifest keeps them."""
    return File(file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)


def verify_file(path: Path, expected: File) -> None:
    """``StoreError`` unless ``path`` is a plain file, by this name alone, with the expected size and hash."""
    with _opened(path, expected) as file:
        _check_hash(path, hashlib.file_digest(file, "sha256").hexdigest(), expected)


def read_verified(path: Path, expected: File) -> bytes:
    """The content of ``path``, checked as by ``verify_file``: what was checked is what is used."""
    with _opened(path, expected) as file:
        data = file.read(expected.bytes)
    _check_hash(path, hashlib.sha256(data).hexdigest(), expected)
    return data


@contextlib.contextmanager
def _opened(path: Path, expected: File) -> Iterator[BufferedReader]:
    try:
        file = open_plain(path)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise StoreError(f"{path}: the manifest's file is missing or not a plain file") from error
        raise StoreError(f"{path}: it cannot be read: {error.strerror}") from error
    with file:
        found = os.fstat(file.fileno())
        if found.st_nlink > 1:
            # Who may not write here may still do so through the other name, after the check.
            raise StoreError(f"{path}: the file has another name too (a hard link), by which it can change; copy it")
        if found.st_size != expected.bytes:
            raise StoreError(f"{path}: {found.st_size} bytes, the manifest says {expected.bytes}")
        yield file


def _check_hash(path: Path, found: str, expected: File) -> None:
    if found != expected.sha256:
        raise StoreError(f"{path}: its SHA-256 is not the manifest's; the file was changed or damaged")


def sha256_of(path: Path) -> str:
    """Of the file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
