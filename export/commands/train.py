"""``python -m export train``: a checkpoint from labelled images."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.train import Recipe, run_training
from model_store.command_line.options import json_option, print_json
from model_store.command_line.program import when_interrupted


@click.command()
@click.option(
    "--images", type=click.Path(path_type=Path), required=True, metavar="DIR_OR_ZIP", help="A folder a class."
)
@click.option("--arch", default=Recipe.arch, show_default=True, metavar="NAME", help="See `list architectures`.")
@click.option("--epochs", type=click.IntRange(min=1), default=Recipe.epochs, show_default=True)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("checkpoint.pth"), show_default=True, metavar="FILE"
)
@click.option("--validate", type=click.Path(path_type=Path), metavar="DIR_OR_ZIP", help="Measure accuracy on these.")
@json_option
@when_interrupted("the same command goes on after the last whole epoch")
def train(images: Path, arch: str, epochs: int, output: Path, validate: Path | None, as_json: bool) -> None:
    """Train a network on labelled images.

    The checkpoint is written after every epoch; the same command goes on from
    there after an interruption.

    \b
    Example:
      python -m export train --images cifar10-train.zip --validate cifar10-test.zip --output build/mine.pth
    """
    run_training(Recipe(arch=arch, epochs=epochs), images, output, Console(stderr=True), validate)
    if as_json:
        print_json({"checkpoint": str(output), "architecture": arch})
    else:
        # A file of the user's is not opened at a checkpoint's word.
        option = f" --arch {arch}" if arch.endswith(".json") else ""
        click.echo(f"{output} is trained; next: python -m export {output}{option} --name MODEL")
