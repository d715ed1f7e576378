"""A store to promote in."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.store import ModelStore

from .stores import publish


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """With three versions of a model."""
    store = ModelStore(tmp_path / "models")
    for version in ("1", "2", "3"):
        publish(store, version=version)
    return store
