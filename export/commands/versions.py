"""``promote`` and ``remove``: which versions a store has, and what they are called."""

from __future__ import annotations

import sys
from typing import Any

import click

from export.commands.options import ModelReference, store_option
from export.errors import ExportError
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store


@click.command()
@click.argument("model", type=ModelReference(), metavar="MODEL@VERSION")
@click.option("--alias", metavar="ALIAS", help="The name that the version gets, as in canary, instead of stable.")
@click.option("--newest", is_flag=True, help="Take the promotion back: the newest version stands for MODEL again.")
@click.option("--remove", "away", is_flag=True, help="With --alias: take the alias away.")
@store_option
@json_option
def promote(
    model: tuple[str, str | None], alias: str | None, newest: bool, away: bool, store: str, as_json: bool
) -> None:
    """Make a version the one that is served for MODEL, whatever newer ones there are.

    Its files are checked against their hashes first. A running service that watches this store takes it over as soon
    as it is loaded; promoting an older version is the way back. With --alias the version gets another name instead,
    and the one that stands for MODEL stays what it is.

    \b
    Examples:
      python -m export promote cifar10@2
      python -m export promote cifar10 --newest
      python -m export promote cifar10@3 --alias canary
      python -m export promote cifar10@canary
      python -m export promote cifar10 --alias canary --remove
    """
    name, version = model
    models = open_store(store, writing=True)
    if alias is not None:
        if newest or away == (version is not None):
            raise click.UsageError("name the version, as in MODEL@2, or --remove")
        models.set_alias(name, alias, version)
        named = models.aliases(name).get(alias)
        told = f"{name}: {alias} is version {named}" if named else f"{name}: {alias} is taken away"
        _tell(told, {"model": name, "version": named, "alias": alias}, as_json)
        return
    if newest == (version is not None) or away:
        raise click.UsageError("name the version, as in MODEL@2, or --newest")
    served = models.promote(name, version).manifest.version
    told = f"{name}: version {served} is served" + (", the newest" if newest else "")
    _tell(told, {"model": name, "version": served, "alias": None}, as_json)


@click.command()
@click.argument("model", type=ModelReference(), metavar="MODEL@VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def remove(model: tuple[str, str | None], yes: bool, store: str, as_json: bool) -> None:
    """Delete one version of a model from the store.

    \b
    Example:
      python -m export remove cifar10@1
    """
    name, version = model
    models = open_store(store, writing=True)
    if version is None:
        there = ", ".join(models.versions(name)) or "none"
        raise ExportError(f"name the version, as in {name}@1; there: {there}")
    version, _ = models.removable(name, version)
    if not yes and not _confirmed(f"Delete {models}/{name}/{version}?"):
        raise ExportError(f"{name} version {version} was not removed: the answer was no; --yes does not ask")
    models.remove(name, version)
    _tell(f"{name} version {version} is removed", {"model": name, "version": version}, as_json)


def _confirmed(question: str) -> bool:
    """Where nobody can answer, the answer is no."""
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(text: str, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(text)
