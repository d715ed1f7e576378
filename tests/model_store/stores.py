"""Models made up in a moment: staged, published, looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_store.manifest import Manifest
from model_store.store import LABELS_FILE, ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file

from .manifests import a_manifest

LABELS = "".join(f"class {i}\n" for i in range(10)).encode()


def stage(folder: Path, name: str = "tiny", version: str = "1", labels: bytes = LABELS, **changes: Any) -> Manifest:
    """A model's files in ``folder`` and the manifest that describes them."""
    (folder / "fp32.onnx").write_bytes(b"weights")
    (folder / LABELS_FILE).write_bytes(labels)
    values = a_manifest() | {"name": name, "version": version} | changes
    values["labels"] = describe_file(folder / LABELS_FILE).model_dump()
    values["variants"] = values["variants"][:1]
    values["variants"][0] |= describe_file(folder / "fp32.onnx").model_dump()
    return Manifest.model_validate_json(json.dumps(values))


def publish(store: ModelStore, name: str = "tiny", version: str = "1", **options: Any) -> StoredModel:
    with store.staging() as staged:
        return store.publish(staged, stage(staged, name, version, **options))


def entries(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
