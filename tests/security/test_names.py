"""What may be a name, wherever one comes in: whatever is let through is a plain word that stays where it belongs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.downloads.http_client import DownloadError
from export.downloads.hub import Repository
from model_store.files import File
from model_store.names import check_alias, check_name, check_version, parse_reference
from service.config import ConfigError, Settings
from service.http.static import ASSETS
from service.jobs.record import clean_name, is_job_id
from service.logs.request_log import plain_id

from .evil import NAMES

_PLAIN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._@-]*")
anything = st.one_of(st.text(max_size=80), st.sampled_from(NAMES), st.text(alphabet="ab1./\\%@-_\0 ．／", max_size=12))


def model_setting(text: str) -> str:
    if "\0" in text:
        raise ConfigError("no variable of a process holds a NUL")
    ((name, version),) = Settings.from_env({"RESNET_MODELS": text}).store.models or (("a", None),)
    return name if version is None else f"{name}@{version}"


def reference(text: str) -> str:
    name, version = parse_reference(text)
    return name if version is None else f"{name}@{version}"


def file_name(text: str) -> str:
    return File(file=text, sha256="0" * 64, bytes=1).file


def job_id(text: str) -> str:
    if not is_job_id(text):
        raise ValueError("no id")
    return text


def hub_owner(text: str) -> str:
    return Repository(text, "model").owner


ENTRIES: dict[str, Callable[[str], str]] = {
    "model": check_name,
    "version": check_version,
    "alias": check_alias,
    "reference": reference,
    "setting": model_setting,
    "manifest's file": file_name,
    "job": job_id,
    "hub": hub_owner,
}


def let_through(entry: Callable[[str], str], text: str) -> str | None:
    try:
        return entry(text)
    except (ValueError, ConfigError, DownloadError):
        return None


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
@given(text=anything)
def test_what_is_let_through_is_a_plain_word(entry: Callable[[str], str], text: str) -> None:
    found = let_through(entry, text)
    if found is not None:
        assert found.isascii()
        assert len(found) <= 128
        for word in found.split("@"):
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", word)
            root = Path("/store")
            assert (root / word).resolve().parent == root
            assert word not in (".", "..")


@pytest.mark.parametrize("entry", ["model", "version", "alias", "reference", "job"])
@pytest.mark.parametrize("name", NAMES)
def test_no_evil_name_is_let_through(entry: str, name: str) -> None:
    assert let_through(ENTRIES[entry], name) is None


@pytest.mark.parametrize("entry", ["model", "version", "alias", "reference", "job"])
@given(name=st.sampled_from(["resnet50", "1", "stable", "mine@2", "0123456789abcdef" * 2]), tail=st.characters())
def test_nothing_hides_at_the_end(entry: str, name: str, tail: str) -> None:
    """A line feed at the end, which ``$`` in a pattern would let pass, or a look-alike that is no ASCII."""
    if not (tail.isascii() and (tail.isalnum() or tail in "._-@")):
        assert let_through(ENTRIES[entry], name + tail) in (None, name), "blanks around a setting's name are cut off"


@given(text=anything)
def test_names_of_entries_stay_below_a_folder(text: str) -> None:
    """Those of a client's files: shown and, on their side, joined to a folder."""
    found = clean_name(text)
    if found is not None:
        assert Path("/out", found).resolve().is_relative_to("/out")
        assert found.isprintable()


@given(text=anything)
def test_an_id_in_logs_and_headers_is_one_word(text: str) -> None:
    assert re.fullmatch(r"[!-~]*", plain_id(text))


def test_the_pages_files_are_plain_names() -> None:
    assert all(_PLAIN.fullmatch(name) for name in ASSETS)
