"""``promote`` and ``remove``."""

from __future__ import annotations

import json

import click
import pytest

from export.commands.versions import promote, remove
from export.errors import ExportError
from model_store.store import ModelStore, StoreError

from .conftest import Exported


def test_promote_and_back(exported: Exported) -> None:
    assert exported.call(promote, "pets@1") == (0, "pets: version 1 is served\n")
    assert ModelStore(exported.store).resolve("pets").manifest.version == "1"
    assert exported.call(promote, "pets", "--newest") == (0, "pets: version 2 is served, the newest\n")


@pytest.mark.parametrize("words", [("pets",), ("pets@1", "--newest")])
def test_promote_needs_a_version_or_newest(exported: Exported, words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError, match="MODEL@2"):
        exported.call(promote, *words)


def test_an_alias_is_given_moved_promoted_and_taken_away(exported: Exported) -> None:
    assert exported.call(promote, "pets@2", "--alias", "canary") == (0, "pets: canary is version 2\n")
    assert exported.call(promote, "pets@1", "--alias", "canary") == (0, "pets: canary is version 1\n")
    assert ModelStore(exported.store).resolve("pets").manifest.version == "2", "an alias is no promotion"
    assert exported.call(promote, "pets@canary") == (0, "pets: version 1 is served\n")
    with pytest.raises(StoreError, match="is promoted"):
        exported.call(remove, "pets@canary", "--yes")
    assert exported.call(promote, "pets", "--alias", "canary", "--remove") == (0, "pets: canary is taken away\n")
    with pytest.raises(StoreError, match="no alias 'canary'"):
        exported.call(promote, "pets@canary")


@pytest.mark.parametrize(
    "words",
    [
        ("pets", "--alias", "canary"),
        ("pets@1", "--alias", "canary", "--remove"),
        ("pets", "--alias", "canary", "--newest"),
        ("pets@1", "--remove"),
    ],
)
def test_an_alias_needs_a_version_or_remove(exported: Exported, words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError, match="name the version"):
        exported.call(promote, *words)


def test_remove(exported: Exported) -> None:
    assert exported.call(remove, "pets@1", "--yes") == (0, "pets version 1 is removed\n")
    assert ModelStore(exported.store).versions("pets") == ["2"]


def test_remove_asks_and_no_answer_is_no(exported: Exported) -> None:
    for answer in ("", "n\n", "no way\n"):  # the first where nobody can answer
        with pytest.raises(ExportError, match="the answer was no; --yes does not ask"):
            exported.call(remove, "pets@1", answer=answer)
    assert ModelStore(exported.store).versions("pets") == ["1", "2"]


def test_remove_asks_and_yes_is_yes(exported: Exported) -> None:
    status, told = exported.call(remove, "pets@1", answer="y\n")
    assert (status, told.endswith("pets version 1 is removed\n")) == (0, True)


def test_remove_takes_no_chances(exported: Exported) -> None:
    with pytest.raises(ExportError, match=r"as in pets@1; there: 1, 2"):
        exported.call(remove, "pets", "--yes")
    with pytest.raises(StoreError, match="no version 9"):
        exported.call(remove, "pets@9", "--yes")


@pytest.mark.parametrize("words", [("pets@1",), ("pets", "--newest")])
def test_a_web_server_is_refused_before_it_is_asked(exported: Exported, words: tuple[str, ...]) -> None:
    for command in (promote, remove):
        with pytest.raises(StoreError, match="https:// can only be read"):
            exported.call(
                command, *words[: 1 if command is remove else None], "--store", "https://h/models", store=False
            )


def test_as_json(exported: Exported) -> None:
    def told(command: click.Command, *words: str) -> object:
        return json.loads(exported.call(command, *words, "--json")[1])

    assert told(promote, "pets@2") == {"model": "pets", "version": "2", "alias": None}
    assert told(promote, "pets@1", "--alias", "old") == {"model": "pets", "version": "1", "alias": "old"}
    assert told(promote, "pets", "--alias", "old", "--remove") == {"model": "pets", "version": None, "alias": "old"}
    assert told(remove, "pets@1", "--yes") == {"model": "pets", "version": "1"}
