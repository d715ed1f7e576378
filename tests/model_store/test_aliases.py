"""Names for versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.aliases import ALIASES_FOLDER
from model_store.names import check_alias, check_name, check_version, is_alias, parse_reference
from model_store.store import PROFILES_FOLDER, ModelStore, StoreError

from .stores import entries

# What they may be called


@pytest.mark.parametrize("alias", ["stable", "canary", "a", "1a", "2026-01", "v2", "x" * 32])
def test_aliases(alias: str) -> None:
    assert check_alias(alias) == alias


@pytest.mark.parametrize(
    "alias", ["", "1", "007", "Canary", "-a", "a b", "a/b", "..", "a.b", "é", "x" * 33, "a\n", "٣"]
)
def test_what_is_no_alias(alias: str) -> None:
    assert not is_alias(alias)
    with pytest.raises(ValueError, match="is no alias"):
        check_alias(alias)


def accepts(check: object, text: str) -> bool:
    try:
        assert callable(check)
        check(text)
    except ValueError:
        return False
    return True


WORDS = st.one_of(st.text(max_size=40), st.from_regex(r"[a-z0-9@.-]{0,40}", fullmatch=True))


@given(WORDS)
def test_nothing_is_both_a_version_and_an_alias(text: str) -> None:
    assert not (accepts(check_version, text) and accepts(check_alias, text))


@given(WORDS)
def test_an_alias_is_one_safe_file_name(text: str) -> None:
    if is_alias(text):
        assert text.isascii()
        assert not text.startswith((".", "-"))
        assert "/" not in text


@given(WORDS)
def test_a_reference_is_read_as_it_is_written_or_refused(text: str) -> None:
    try:
        name, version = parse_reference(text)
    except ValueError:
        return
    assert check_name(name) == name
    assert version is None or is_alias(version) or check_version(version) == version
    assert text == (name if version is None else f"{name}@{version}")


# In the store


def test_an_alias_is_set_moved_and_taken_away(store: ModelStore) -> None:
    assert store.aliases("tiny") == {}
    store.set_alias("tiny", "canary", "3")
    store.set_alias("tiny", "last-year", "1")
    assert store.aliases("tiny") == {"canary": "3", "last-year": "1"}
    assert store.resolve("tiny", "canary").manifest.version == "3"
    store.set_alias("tiny", "canary", "2")
    store.set_alias("tiny", "last-year", None)
    assert store.aliases("tiny") == {"canary": "2"}
    store.set_alias("tiny", "canary", None)
    assert not [entry for entry in entries(store.root) if ALIASES_FOLDER in entry]


def test_stable_is_what_promote_says(store: ModelStore) -> None:
    assert store.resolve("tiny", "stable").manifest.version == "3"
    store.promote("tiny", "1")
    assert store.resolve("tiny", "stable").manifest.version == "1"
    with pytest.raises(StoreError, match="promote"):
        store.set_alias("tiny", "stable", "2")
    assert store.aliases("tiny") == {}


def test_an_alias_is_promoted_and_followed(store: ModelStore) -> None:
    store.set_alias("tiny", "canary", "2")
    assert store.promote("tiny", "canary").manifest.version == "2"
    store.set_alias("tiny", "before", "canary")
    assert store.aliases("tiny")["before"] == "2"


def test_what_is_not_there_or_damaged_gets_no_alias(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="no version 7"):
        store.set_alias("tiny", "canary", "7")
    with pytest.raises(StoreError, match="no alias 'beta'; there: stable"):
        store.set_alias("tiny", "canary", "beta")
    with pytest.raises(StoreError, match="no alias 'canary'"):
        store.set_alias("tiny", "canary", None)
    for alias in ("2", "../x", "Canary", ""):
        with pytest.raises(StoreError, match="is no alias"):
            store.set_alias("tiny", alias, "2")
    (store.root / "tiny" / "2" / "fp32.onnx").write_bytes(b"weighty")
    with pytest.raises(StoreError, match="SHA-256"):
        store.set_alias("tiny", "canary", "2")
    assert store.aliases("tiny") == {}


@pytest.mark.parametrize("content", [b"", b"two", b"0", b"../1", b"9", b"\xff"])
def test_a_damaged_alias_is_an_error_and_no_other_version(store: ModelStore, content: bytes) -> None:
    store.set_alias("tiny", "canary", "2")
    (store.root / "tiny" / ALIASES_FOLDER / "canary").write_bytes(content)
    with pytest.raises(StoreError):
        store.resolve("tiny", "canary")
    assert store.resolve("tiny").manifest.version == "3"


def test_other_files_are_no_aliases(store: ModelStore) -> None:
    store.set_alias("tiny", "canary", "2")
    for name in (".staging-abc", "README.md", "stable", "12"):
        (store.root / "tiny" / ALIASES_FOLDER / name).write_text("1")
    assert store.aliases("tiny") == {"canary": "2"}


# Versions that go


def test_a_version_with_an_alias_stays(store: ModelStore) -> None:
    store.set_alias("tiny", "canary", "2")
    with pytest.raises(StoreError, match="is its canary"):
        store.remove("tiny", "2")
    with pytest.raises(StoreError, match="is its canary"):
        store.remove("tiny", "canary")
    store.set_alias("tiny", "canary", "3")
    store.remove("tiny", "2")
    assert store.versions("tiny") == ["1", "3"]


def test_what_was_measured_goes_with_the_last_version(store: ModelStore) -> None:
    profiles = store.root / "tiny" / PROFILES_FOLDER
    profiles.mkdir()
    (profiles / "3-abc.json").write_text("{}")
    store.promote("tiny", "3")
    for version in ("1", "2"):
        store.remove("tiny", version)
        assert profiles.is_dir()
    store.remove("tiny", "3")
    assert entries(store.root) == []
