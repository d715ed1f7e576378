"""A model that can be tuned, and where its profiles lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.stored_model import StoredModel
from service.config import Settings
from tests.service.conftest import TinyModel, a_gate, publish_tiny


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    others = {"int8": (TinyModel(seed=1), a_gate())}
    return publish_tiny(tmp_path / "store", others=others)  # type: ignore[arg-type]


def store(stored: StoredModel) -> Path:
    return stored.folder.parents[1]


def settings_of(stored: StoredModel, **environ: object) -> Settings:
    values = {"model_store": store(stored), **environ}
    return Settings.from_env({f"RESNET_{name.upper()}": str(value) for name, value in values.items()})
