"""A store with two versions of a tiny model, and the commands called as the command line calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from export.classifier import Classifier
from export.convert import Request, convert

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


@dataclass(frozen=True)
class Exported:
    """A store, the checkpoint that its models are from, and what was said last."""

    store: Path
    checkpoint: Path

    def call(self, command: click.Command, *words: str, store: bool = True) -> tuple[int, str]:
        """Exit status and standard output; errors that the program prints as one line are raised."""
        options = ["--store", str(self.store)] if store else []
        result = CliRunner().invoke(command, [*words, *options], standalone_mode=False, catch_exceptions=False)
        return result.exit_code, result.stdout


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
