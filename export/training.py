"""Prepares a training run: its data, and whether a checkpoint that is there can be resumed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from export.checkpoints import read_checkpoint
from export.convert import find_spec
from export.train import Recipe, TrainingError, load_dataset, train


def run_training(recipe: Recipe, data: Path, out: Path, console: Console, validate: Path | None) -> None:
    """Train ``recipe`` on ``data`` into ``out``; ``ExportError`` before the first epoch where that cannot work."""
    size = find_spec(recipe.arch).image_size
    if out.exists() and read_checkpoint(out).training is None:
        raise TrainingError(f"{out} is there already and was not written by this command; name another --out")
    dataset = load_dataset(data, size, console)
    if len(dataset.labels) < 2:
        raise TrainingError(f"{data}: one class only; there is nothing to tell apart")
    validation = load_dataset(validate, size, console) if validate else None
    if validation and validation.labels != dataset.labels:
        raise TrainingError(f"{validate}: its classes are not those of {data}")
    train(recipe, dataset, out, console, validation)
