"""The options that all commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click

from service.client.base import DEFAULT_RETRY, DEFAULT_TIMEOUT_S, DEFAULT_URL
from service.client.command.output import FORMATS
from service.client.command.run import Shared

# Not RESNET_...: those are the service's settings, and it does not start with one that it does not know.
URL_VARIABLE: Final = "SERVER_URL"
KEY_VARIABLE: Final = "SERVER_API_KEY"


def _headers(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(_header(text) for text in given)


def _header(text: str) -> tuple[str, str]:
    """``Name: value``, as curl takes it."""
    name, colon, value = text.partition(":")
    if not (colon and name.strip() and text.isascii() and text.isprintable()):
        raise click.BadParameter("must be 'Name: value'")
    return name.strip(), value.strip()


def _key(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given is not None and not (given.isascii() and given.isprintable() and given.strip() == given):
        raise click.BadParameter("must be printable ASCII characters")  # and not shown
    return given or None


def _reference(model: str | None, version: str | None) -> tuple[str | None, str | None]:
    """``NAME@VERSION`` as the two, which ``--version`` may say as well, but not otherwise."""
    name, _, of_name = (model or "").partition("@")
    if of_name and version not in (None, of_name):
        raise click.UsageError(f"--model {model} and --version {version} differ: name one version")
    return name or None, of_name or version


_OPTIONS: Final = (
    click.argument("files", nargs=-1, required=True),
    click.option(
        "--url",
        default=DEFAULT_URL,
        show_default=True,
        envvar=URL_VARIABLE,
        show_envvar=True,
        help="Where the service is.",
    ),
    click.option(
        "--api-key",
        envvar=KEY_VARIABLE,
        show_envvar=True,
        metavar="KEY",
        callback=_key,
        help="Where the service asks for one; others on this machine see the option, the variable they do not.",
    ),
    click.option("--model", metavar="NAME[@VERSION]", help="The model; the service's default one if absent."),
    click.option("--version", metavar="VERSION", help="Its version or alias; of the default model, too."),
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1000),
        default=8,
        show_default=True,
        help="Most requests at once; fewer while the service is full.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, 3600, min_open=True),
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        help="Seconds that one attempt may take.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        default=DEFAULT_RETRY.retries,
        show_default=True,
        help="More attempts where the service is full, starting or away.",
    ),
    click.option(
        "--header", "-H", multiple=True, callback=_headers, metavar="'NAME: VALUE'", help="Sent with each request."
    ),
    click.option(
        "--output",
        "-o",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write there instead of to standard output.",
    ),
    click.option(
        "--format",
        type=click.Choice(FORMATS),
        help="Of the results; by --output's suffix if absent, else a table on a terminal.",
    ),
)

BATCH: Final = click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images in one request."
)


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """Gives ``function`` the options of all commands as one ``Shared``."""
    names = [field.name for field in fields(Shared)]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        given["model"], given["version"] = _reference(given["model"], given["version"])
        function(Shared(**{name: given.pop(name) for name in names if name in given}), **given)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
