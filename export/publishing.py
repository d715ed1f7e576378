"""A model's next version: what an earlier one holds, and what was made new."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.reports.model_card import CARD_FILE, renew_card
from model_store.manifest import Manifest
from model_store.store import ModelStore
from model_store.stored_model import StoredModel

# Writes what is new into the staged folder, and says which of the manifest's fields are new with it.
Make = Callable[[Path], Mapping[str, Any]]


def publish_next(store: ModelStore, stored: StoredModel, make: Make) -> StoredModel:
    """``stored`` with what ``make`` changes, as the model's next version; ``StoreError`` where it may not be published.

    A file that ``make`` wrote takes the place of one of the same name, all others are copied; the card is renewed.
    """
    # What is new is about as large as what it is made from, at most.
    with store.staging(2 * sum(file.bytes for file in stored.manifest.files)) as staged:
        changes = make(staged)
        written = {path.name for path in staged.iterdir()}
        version = store.next_version(stored.manifest.name)
        created = datetime.now(UTC).replace(microsecond=0)
        manifest = stored.manifest.model_copy(update={"version": version, "created": created, **changes})
        manifest = Manifest.model_validate(manifest.model_dump())  # model_copy checks nothing
        for kept in manifest.files:
            if kept.file not in written:
                shutil.copyfile(stored.path(kept), staged / kept.file)
        card = renew_card(_card(stored), manifest, stored.labels())
        (staged / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
        return store.publish(staged, manifest)


def _card(stored: StoredModel) -> str:
    """The card of the version that this one is made from; empty where it has none."""
    path = stored.folder / CARD_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
