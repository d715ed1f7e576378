"""``python -m service keys new NAME``: an API key, and the line that lets its holder in."""

from __future__ import annotations

import os
from pathlib import Path

import click

from model_store.command_line.program import Program
from service.access.keys import Limits, checked_name, line_of, new_key, parse_keys


def _name(_: click.Context, __: click.Parameter, name: str) -> str:
    try:
        return checked_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(cls=Program)
def keys() -> None:
    """API keys of the service: who sets RESNET_API_KEYS_FILE or RESNET_API_KEYS lets in none without one.

    \b
    Example:
      python -m service keys new mobile-app --file keys.txt
    """


@keys.command()
@click.argument("name", callback=_name)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add the line there, and print the key alone. It is made where it is not, for its owner alone to read.",
)
@click.option("--images-per-s", type=click.FloatRange(1e-6, 1e9), help="Images a second it may send.")
@click.option("--burst", type=click.IntRange(1), help="Images it may send at once after a quiet while.")
@click.option("--concurrency", type=click.IntRange(1), help="Images it may have in work.")
def new(name: str, file: Path | None, images_per_s: float | None, burst: int | None, concurrency: int | None) -> None:
    """Make a key for NAME, and print it: this once, as nothing but its hash is kept.

    The second line that is printed belongs into the service's file of keys;
    a service that runs reads it within a second. A name may have several keys,
    as while one replaces another: limits and jobs are of the name.

    \b
    Examples:
      python -m service keys new mobile-app
      python -m service keys new mobile-app --file keys.txt --images-per-s 50
    """
    key = new_key()
    line = line_of(name, key, images_per_s=images_per_s, burst=burst, concurrency=concurrency)
    if file is not None:
        _append(file, line)
    click.echo(key)
    if file is None:
        click.echo(line)


def _append(path: Path, line: str) -> None:
    """Add ``line``, unless the file were wrong with it."""
    try:
        before = path.read_text() if path.exists() else ""
        parse_keys(f"{before}\n{line}", Limits())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{'' if not before or before.endswith(chr(10)) else chr(10)}{line}\n")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path}: is no text") from error
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
