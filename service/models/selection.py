"""Which versions of the store's models are served, and what they are called: the version policy, a pure function."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from model_store.names import STABLE, is_alias
from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel
from service.config import Settings
from service.models.view import ModelView, look_at_all
from service.settings import StoreSettings

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Selection:
    """Of one model: the versions to serve, the one that answers first, and them by alias, ``stable`` included."""

    versions: tuple[str, ...]
    aliases: Mapping[str, str]


NOTHING: Final = Selection((), _NOTHING)


def asked(store: StoreSettings, name: str) -> list[str | None]:
    """What ``RESNET_MODELS`` says of ``name``: versions and aliases, None for what the policy says."""
    return [version for model, version in store.models if model == name] or [None]


def named(store: StoreSettings) -> list[str]:
    """The models that ``RESNET_MODELS`` names, in its order; none where it takes all."""
    return list(dict.fromkeys(name for name, _ in store.models))


def select(
    name: str,
    store: StoreSettings,
    view: ModelView,
    unusable: Collection[str] = (),
    held: Mapping[str, str] = _NOTHING,
) -> Selection:
    """What to serve of ``name``; ``StoreError`` where the settings ask for what the store has not.

    ``unusable`` are versions that cannot be loaded: what names one of them stays with the version that it has in
    ``held``, the aliases of what is served now. Without that, the newest version that can be loaded is the stable one.
    """
    usable = [version for version in view.versions if version not in unusable]
    aliases = _aliases(view, usable, held)
    versions: list[str] = []
    for wanted in asked(store, name):
        if wanted is None:
            versions += _by_policy(store.version_policy, usable, aliases)
        elif is_alias(wanted):
            if wanted != STABLE and wanted not in view.aliases:
                raise StoreError(f"model {name!r} has no alias {wanted!r}; there: {', '.join([STABLE, *view.aliases])}")
            versions += [aliases[wanted]] if wanted in aliases else []
        elif wanted in view.versions:
            versions += [wanted] if wanted in usable else []
        else:
            raise StoreError(f"model {name!r} has no version {wanted}; there: {', '.join(view.versions)}")
    chosen = tuple(dict.fromkeys(versions))
    aliases = {alias: version for alias, version in aliases.items() if version in chosen}
    if chosen:  # where all are pinned, none of them may be the stable one
        aliases.setdefault(STABLE, max(chosen, key=int))
    return Selection(chosen, aliases)


def _aliases(view: ModelView, usable: Sequence[str], held: Mapping[str, str]) -> dict[str, str]:
    """Versions by alias, as near to the store's as ``usable`` allows."""
    wanted = {STABLE: view.promoted or list(view.versions)[-1], **view.aliases}
    aliases = {alias: version if version in usable else held.get(alias) for alias, version in wanted.items()}
    if aliases[STABLE] is None and usable:
        aliases[STABLE] = usable[-1]
    return {alias: version for alias, version in aliases.items() if version is not None}


def _by_policy(policy: str, usable: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """The stable one, then the others, newest first."""
    kind, _, count = policy.partition(":")
    newest = {"stable": 0, "latest": int(count or 1), "all": len(usable)}[kind]
    others = {*aliases.values(), *(usable[-newest:] if newest else ())}
    first = [aliases[STABLE]] if STABLE in aliases else []
    return [*first, *sorted(others.difference(first), key=int, reverse=True)]


def chosen_models(settings: Settings) -> list[StoredModel]:
    """The models to serve, verified, the default one first; ``StoreError`` where one is missing or damaged."""
    store = ModelStore(settings.store.folder)
    chosen = []
    try:
        views = look_at_all(store, named(settings.store))
    except OSError as error:
        raise StoreError(f"{store.root}: cannot be read: {error}") from error
    for name, view in views.items():
        if isinstance(view, StoreError):
            raise view
        chosen += [store.resolve(name, version) for version in select(name, settings.store, view).versions]
    for stored in chosen:
        check(stored)
    return chosen


def check(stored: StoredModel) -> None:
    """``StoreError`` where a file of ``stored`` is not the manifest's; reads them all."""
    stored.verify()
    stored.labels()
