"""``promote`` and ``remove``: which versions a store has, and which of them stands for its model."""

from __future__ import annotations

from pathlib import Path

import click

from export.commands.options import ModelReference, store_option
from export.errors import ExportError
from model_store.store import ModelStore


@click.command()
@click.argument("model", type=ModelReference(), metavar="MODEL@VERSION")
@click.option("--newest", is_flag=True, help="Take the promotion back: the newest version stands for MODEL again.")
@store_option
def promote(model: tuple[str, str | None], newest: bool, store: Path) -> None:
    """Make a version the one that is served for MODEL, whatever newer ones there are.

    Its files are checked against their hashes first. A service that runs
    already keeps what it loaded until it is started again.

    \b
    Examples:
      python -m export promote cifar10@2
      python -m export promote cifar10 --newest
    """
    name, version = model
    if newest == (version is not None):
        raise click.UsageError("name the version, as in MODEL@2, or --newest")
    served = ModelStore(store).promote(name, version).manifest.version
    click.echo(f"{name}: version {served} is served" + (", the newest" if newest else ""))


@click.command()
@click.argument("model", type=ModelReference(), metavar="MODEL@VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def remove(model: tuple[str, str | None], yes: bool, store: Path) -> None:
    """Delete one version of a model from the store.

    \b
    Example:
      python -m export remove cifar10@1
    """
    name, version = model
    if version is None:
        there = ", ".join(ModelStore(store).versions(name)) or "none"
        raise ExportError(f"name the version, as in {name}@1; there: {there}")
    folder = ModelStore(store).resolve(name, version).folder
    if not yes:
        click.confirm(f"Delete {folder}?", abort=True, err=True)
    ModelStore(store).remove(name, version)
    click.echo(f"{name} version {version} is removed")
