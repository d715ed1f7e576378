"""``python -m export train``: a checkpoint from labelled images."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.train import Recipe, run_training


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, metavar="ZIP_OR_DIR", help="A folder a class.")
@click.option("--arch", default=Recipe.arch, show_default=True, metavar="NAME", help="See `list architectures`.")
@click.option("--epochs", type=click.IntRange(min=1), default=Recipe.epochs, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("checkpoint.pth"), show_default=True, metavar="FILE"
)
@click.option("--validate", type=click.Path(path_type=Path), metavar="ZIP_OR_DIR", help="Measure accuracy on these.")
def train(data: Path, arch: str, epochs: int, out: Path, validate: Path | None) -> None:
    """Train a network on labelled images.

    The checkpoint is written after every epoch; the same command goes on from
    there after an interruption.

    \b
    Example:
      python -m export train --data cifar10-train.zip --validate cifar10-test.zip --out build/mine.pth
    """
    run_training(Recipe(arch=arch, epochs=epochs), data, out, Console(stderr=True), validate)
    click.echo(f"{out} is trained; next: python -m export {out} --name MODEL")
