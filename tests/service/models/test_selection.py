from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.store import StoreError
from service.config import ConfigError, Settings
from service.models.selection import asked, named, select
from service.models.view import ModelView
from service.settings import StoreSettings


def settings(models: str = "*", policy: str = "stable") -> StoreSettings:
    return Settings.from_env({"RESNET_MODELS": models, "RESNET_VERSION_POLICY": policy}).store


def a_view(*versions: str, promoted: str | None = None, **aliases: str) -> ModelView:
    return ModelView(dict.fromkeys(versions, ()), promoted, aliases)


def chosen(store: StoreSettings, view: ModelView, unusable: set[str] | None = None, **held: str) -> list[str]:
    return list(select("m", store, view, unusable or set(), held).versions)


def test_models_in_the_order_of_the_settings() -> None:
    store = settings("b@2,a,b,b@canary")
    assert named(store) == ["b", "a"]
    assert asked(store, "b") == ["2", None, "canary"]
    assert named(settings()) == []
    assert asked(settings(), "x") == [None]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("stable", ["2", "1"]),
        ("latest", ["2", "4", "1"]),
        ("latest:1", ["2", "4", "1"]),
        ("latest:2", ["2", "4", "3", "1"]),
        ("latest:99", ["2", "4", "3", "1"]),
        ("all", ["2", "4", "3", "1"]),
    ],
)
def test_policies_and_what_aliases_name(policy: str, versions: list[str]) -> None:
    assert chosen(settings(policy=policy), a_view("1", "2", "3", "4", promoted="2", canary="1")) == versions


def test_pinned_versions_are_served_alone() -> None:
    view = a_view("1", "2", "3", promoted="3", canary="2")
    found = select("m", settings("m@1,m@2"), view)
    assert found.versions == ("1", "2")
    assert found.aliases == {"canary": "2", "stable": "2"}
    assert select("m", settings("m@canary"), view).versions == ("2",)
    assert select("m", settings("m@stable"), view).versions == ("3",)


def test_what_is_asked_for_and_not_there() -> None:
    with pytest.raises(StoreError, match="no version 9; there: 1, 2"):
        chosen(settings("m@9"), a_view("1", "2"))
    with pytest.raises(StoreError, match="no alias 'beta'; there: stable, canary"):
        chosen(settings("m@beta"), a_view("1", "2", canary="1"))


def test_an_alias_stays_where_it_was_while_its_version_cannot_be_loaded() -> None:
    view = a_view("1", "2", "3", "4", promoted="3", canary="4")
    found = select("m", settings(), view, {"3", "4"}, {"stable": "1", "canary": "2"})
    assert found.versions == ("1", "2")
    assert found.aliases == {"stable": "1", "canary": "2"}
    # Where nothing is held, the newest that can be loaded stands for the model, and the alias is none.
    found = select("m", settings(), view, {"3", "4"})
    assert (found.versions, found.aliases) == (("2",), {"stable": "2"})


def test_nothing_that_can_be_loaded_is_nothing_to_serve() -> None:
    assert select("m", settings(policy="all"), a_view("1", "2"), {"1", "2"}).versions == ()


VERSIONS = st.lists(st.integers(1, 30).map(str), min_size=1, max_size=8, unique=True).map(lambda v: sorted(v, key=int))


@given(st.data(), VERSIONS, st.sampled_from(["stable", "latest", "latest:3", "all"]))
def test_a_selection_holds_together(data: st.DataObject, versions: list[str], policy: str) -> None:
    some = st.sampled_from(versions)
    aliases: Mapping[str, str] = data.draw(st.dictionaries(st.sampled_from(["canary", "beta", "old"]), some))
    promoted = data.draw(st.none() | some)
    unusable = data.draw(st.sets(some))
    view = a_view(*versions, promoted=promoted, **aliases)
    found = select("m", settings(policy=policy), view, unusable)
    assert len(set(found.versions)) == len(found.versions)
    assert set(found.versions).isdisjoint(unusable)
    assert set(found.aliases.values()) <= set(found.versions)
    usable = [version for version in versions if version not in unusable]
    assert bool(found.versions) == bool(usable)
    if usable:
        assert found.versions[0] == found.aliases["stable"]
        assert {alias for alias, version in aliases.items() if version in usable} <= set(found.aliases)
    if policy == "all":
        assert set(found.versions) == set(usable)


@given(st.text(max_size=12) | st.from_regex(r"(latest|stable|all)?:?[0-9]{0,3}", fullmatch=True))
def test_a_policy_is_known_or_refused(text: str) -> None:
    if re.fullmatch(r"stable|all|latest|latest:[1-9]\d?", text, re.ASCII):
        assert chosen(settings(policy=text), a_view("1", "2"))
    else:
        with pytest.raises(ConfigError, match="stable, all, latest or latest:N"):
            settings(policy=text)
