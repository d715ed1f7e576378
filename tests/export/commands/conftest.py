"""A store with two versions of a tiny model, and the commands called as the command line calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from export.convert import Request, convert
from export.networks.classifier import Classifier
from model_store.manifest import MANIFEST_FILE
from model_store.stored_model import StoredModel

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


@dataclass(frozen=True)
class Exported:
    """A store, the checkpoint that its models are from, and what was said last."""

    store: Path
    checkpoint: Path

    def call(self, command: click.Command, *words: str, store: bool = True, answer: str = "") -> tuple[int, str]:
        """Exit status and standard output; errors that the program prints as one line are raised."""
        options = ["--store", str(self.store)] if store else []
        result = CliRunner().invoke(
            command, [*words, *options], standalone_mode=False, catch_exceptions=False, input=answer
        )
        return result.exit_code, result.stdout


def add_bf16(stored: StoredModel) -> None:
    """Write a bf16 variant that passed its gate into the manifest of ``stored``."""
    path = stored.folder / MANIFEST_FILE
    content = json.loads(path.read_text())
    file = {key: content["variants"][0][key] for key in ("file", "sha256", "bytes")}
    gate = {
        "rule": "agreement",
        "passed": True,
        "provider": "openvino",
        "images": 8,
        "image_source": "made up",
        "top1_agreement": 1.0,
        "max_accuracy_drop": 0.005,
        "min_agreement": 0.98,
        "max_absolute_error": 0.1,
    }
    content["variants"].append(file | {"precision": "bf16", "gate": gate})
    path.write_text(json.dumps(content))


@pytest.fixture
def exported(
    tmp_path: Path, tiny: Classifier, pictures: Callable[..., Path], tiny_is_known: None, exported_once: None
) -> Exported:
    """Model ``pets`` in versions 1 and 2, labelled, with images beside it (``pictures``) and accuracy measured."""
    checkpoint, labels = tmp_path / "tiny.pth", tmp_path / "labels.txt"
    torch.save(tiny.state_dict(), checkpoint)
    labels.write_text("".join(f"{label}\n" for label in LABELS))
    request = Request(
        checkpoint=checkpoint,
        name="pets",
        store=tmp_path / "store",
        arch="tiny",
        labels=labels,
        verify_images=pictures(("cat", "dog"), count=4),
    )
    for _ in range(2):
        convert(request, Console(quiet=True))
    return Exported(request.store, checkpoint)
