"""What a look at the store finds: cheap enough to be repeated every few seconds, as no file's content is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.store import ModelStore, StoreError

Signature = tuple[tuple[str, int, int, int], ...]
"""Of a version's files: name, inode, bytes, time of change; another one says that a file may be another."""


@dataclass(frozen=True)
class ModelView:
    """One model as the store has it.

    versions -- oldest first, with the signatures of their files; at least one.
    promoted -- the version that was promoted, if one was.
    aliases  -- versions by alias, ``stable`` left out.
    """

    versions: Mapping[str, Signature]
    promoted: str | None
    aliases: Mapping[str, str]


def look(store: ModelStore, name: str) -> ModelView:
    """The model ``name``; ``StoreError`` where there is none or an alias of it is broken, ``OSError`` beyond that."""
    store.newest(name)
    promoted, aliases = store.promoted(name), store.aliases(name)
    # Read last, so that what was published and promoted meanwhile is among them.
    return ModelView({v: _signature(store.root / name / v) for v in store.versions(name)}, promoted, aliases)


def look_at_all(store: ModelStore, names: Sequence[str]) -> dict[str, ModelView | StoreError]:
    """The models ``names``, or all where that is empty, each with what is wrong with it in its place.

    ``StoreError`` or ``OSError`` where the store cannot be read or has no model at all.
    """
    if not names and not (names := store.names()):
        raise StoreError(f"{store.root}: the store has no model; export one, or set RESNET_MODEL_STORE")
    found: dict[str, ModelView | StoreError] = {}
    for name in names:
        try:
            found[name] = look(store, name)
        except StoreError as error:
            found[name] = error
    return found


def _signature(folder: Path) -> Signature:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found))
